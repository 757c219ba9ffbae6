//! [`LogLines`]: one line for each event, for people or for machines.
//!
//! Invariants: every line has time, level, target and message, and within a request its correlation
//! id and trace id. What a field's name calls a secret is replaced, and so are credentials inside
//! texts. A value is cut at [`VALUE_BYTES_MAX`], so that no document ends up in the log.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::correlation;
use crate::redact::{REDACTED, is_secret_name, redact};
use crate::wall_clock::{WallClock, rfc3339};

/// The longest value of a field, in bytes: a long error with its path, far below any document
/// worth the name.
const VALUE_BYTES_MAX: usize = 512;
/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; with colours where the terminal has them.
    Human {
        /// Whether the level is coloured.
        colours: bool,
    },
    /// One JSON object a line.
    Json,
}

/// Where lines go.
pub type LogWriter = Arc<Mutex<dyn Write + Send>>;

/// Writes a line for each event that it is handed.
pub struct LogLines {
    format: LogFormat,
    writer: LogWriter,
    clock: WallClock,
}

impl LogLines {
    /// Writes in this format.
    #[must_use]
    pub fn new(format: LogFormat, writer: LogWriter) -> Self {
        Self { format, writer, clock: WallClock::system() }
    }

    /// Writes the line of an event.
    pub(crate) fn write(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let current =
            |ids: &correlation::Ids, span_id| (ids.correlation.clone(), ids.trace_id, span_id);
        // Records of the `log` façade bring their target as a field.
        let target = fields.log_target.take();
        let line = Line {
            time: rfc3339(self.clock.unix_ms()),
            level: *event.metadata().level(),
            target: target.as_deref().unwrap_or(event.metadata().target()),
            ids: correlation::with_current(current),
            fields,
        };
        let text = match self.format {
            LogFormat::Human { colours } => line.human(colours),
            LogFormat::Json => line.json(),
        };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere to say that the log cannot be written.
        let _ = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
    }
}

/// What a line says besides its message.
struct Line<'a> {
    time: String,
    level: Level,
    target: &'a str,
    /// Correlation id, trace id and span id.
    ids: Option<(String, u128, u64)>,
    fields: Fields,
}

impl Line<'_> {
    fn json(self) -> String {
        let mut object = Map::new();
        object.insert("time".into(), self.time.into());
        object.insert("level".into(), self.level.as_str().into());
        object.insert("target".into(), self.target.into());
        object.insert("message".into(), self.fields.message.into());
        if let Some((correlation, trace_id, span_id)) = self.ids {
            if !correlation.is_empty() {
                object.insert("correlation_id".into(), correlation.into());
            }
            object.insert("trace_id".into(), format!("{trace_id:032x}").into());
            object.insert("span_id".into(), format!("{span_id:016x}").into());
        }
        if !self.fields.values.is_empty() {
            let fields = self.fields.values.into_iter();
            let fields: Map<_, _> = fields.map(|(name, value)| (name.to_string(), value)).collect();
            object.insert("fields".into(), Value::Object(fields));
        }
        format!("{}\n", Value::Object(object))
    }

    fn human(self, colours: bool) -> String {
        let mut text = String::with_capacity(160);
        let level = self.level.as_str();
        let _ = match (colours, colour(self.level)) {
            (true, colour) => write!(text, "{} \x1b[{colour}m{level:>5}\x1b[0m", self.time),
            (false, _) => write!(text, "{} {level:>5}", self.time),
        };
        let _ = write!(text, " {}: {}", self.target, one_line(&self.fields.message));
        for (name, value) in &self.fields.values {
            let _ = match value {
                Value::String(value) if is_word(value) => write!(text, " {name}={value}"),
                value => write!(text, " {name}={value}"),
            };
        }
        if let Some((correlation, trace_id, _)) = self.ids {
            if !correlation.is_empty() {
                let _ = write!(text, " correlation_id={correlation}");
            }
            let _ = write!(text, " trace_id={trace_id:032x}");
        }
        text.push('\n');
        text
    }
}

/// The terminal's colour of a level.
fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=')
}

/// A line must not look like two, nor drive a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Default)]
struct Fields {
    message: String,
    log_target: Option<String>,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => self.message = shown(text, MESSAGE_BYTES_MAX),
            "log.target" => self.log_target = Some(shown(text, VALUE_BYTES_MAX)),
            name if name.starts_with("log.") => {}
            name if is_secret_name(name) => self.values.push((name, REDACTED.into())),
            name => self.values.push((name, shown(text, VALUE_BYTES_MAX).into())),
        }
    }

    fn number(&mut self, field: &Field, value: Value) {
        if !field.name().starts_with("log.") {
            self.values.push((field.name(), value));
        }
    }
}

/// Without secrets, and not longer than `bytes_max`.
fn shown(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return redact(text);
    }
    let cut = &text[..text.floor_char_boundary(bytes_max)];
    format!("{}… ({} bytes)", redact(cut), text.len())
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}
