//! [`extract`]: title and text of a file by its kind, and [`records`]: documents of NDJSON.
//!
//! Source code and Markdown keep their text as it is, so that `native` finds in the index what
//! ripgrep finds in the file; Markdown only lends its title or first heading. HTML and PDF become
//! text. Their readers meet hostile files, so they run on a thread of their own, whose panic, stack
//! and time are bounded.

use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde::Deserialize;

use super::decode::{Decoded, decode};
use super::language::language;

/// The longest title that is taken from a file, in bytes; documents allow no more.
pub(crate) const TITLE_BYTES_MAX: usize = 4096;
/// The longest text that is taken from a file, in bytes; documents allow no more.
pub(crate) const BODY_BYTES_MAX: usize = 32 << 20;
/// A heading that comes later is no title.
const HEADING_BYTES_MAX: usize = 64 << 10;
/// A page of PDF takes some milliseconds; a file that takes longer than this hangs.
const READER_TIME_MAX: Duration = Duration::from_secs(20);
/// Readers call themselves for nested structures: deeper than this stack is hostile.
const READER_STACK_BYTES: usize = 64 << 20;
/// Readers that ran out of time go on in the background, as a thread cannot be stopped. With this
/// many of them, further files are refused until one ends.
const READERS_LATE_MAX: usize = 4;
/// HTML is laid out in lines of this width; long lines keep sentences together.
const HTML_COLUMNS: usize = 2000;
/// The name of reader threads, by which their panics are kept quiet.
const READER_THREAD: &str = "extract";

/// What a file is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text as it is.
    Plain,
    /// Text as it is, with a title.
    Markdown,
    /// Markup.
    Html,
    /// Pages.
    Pdf,
}

impl Kind {
    /// By the extension of the name.
    pub(crate) fn of(name: &str) -> Self {
        let file = name.rsplit('/').next().unwrap_or(name);
        let extension = file.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        match extension.as_deref() {
            Some("md" | "markdown" | "mdown" | "mkd") => Self::Markdown,
            Some("html" | "htm" | "xhtml") => Self::Html,
            Some("pdf") => Self::Pdf,
            _ => Self::Plain,
        }
    }
}

/// The parts of a file that are indexed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// A headline; empty when the file has none.
    pub(crate) title: String,
    /// The text.
    pub(crate) body: String,
    /// The language by [`language`]; empty when unknown.
    pub(crate) language: &'static str,
}

/// Why a file gives no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExtractError {
    /// It is binary: left out without a report, as ripgrep does.
    Binary,
    /// It is damaged, hostile or beyond a bound.
    Failed(String),
}

/// Takes a file apart.
pub(crate) fn extract(name: &str, bytes: Vec<u8>) -> Result<Extracted, ExtractError> {
    let kind = Kind::of(name);
    if kind == Kind::Pdf {
        let body = guarded("PDF", READER_TIME_MAX, move || {
            pdf_extract::extract_text_from_mem(&bytes).map_err(|error| error.to_string())
        })?;
        let body = clean(&body);
        return bounded(Extracted { title: first_line(&body), body, language: "" });
    }
    let text = match decode(bytes) {
        Decoded::Text { text, .. } => text,
        Decoded::Binary { .. } => return Err(ExtractError::Binary),
    };
    let extracted = match kind {
        Kind::Html => guarded("HTML", READER_TIME_MAX, move || html(&text))?,
        Kind::Markdown => {
            Extracted { title: heading(&text), language: language(name, &text), body: text }
        }
        Kind::Plain | Kind::Pdf => {
            Extracted { title: String::new(), language: language(name, &text), body: text }
        }
    };
    bounded(extracted)
}

/// Keeps the panics of readers off the terminal; they are reported as the file's problem. Called
/// once at the start of the program.
pub(crate) fn quiet_reader_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some(READER_THREAD) {
            before(info);
        }
    }));
}

fn bounded(mut extracted: Extracted) -> Result<Extracted, ExtractError> {
    let bytes = extracted.body.len();
    if bytes > BODY_BYTES_MAX {
        let why =
            format!("its text has {bytes} bytes, the bound is {BODY_BYTES_MAX}; split the file");
        return Err(ExtractError::Failed(why));
    }
    let end = extracted.title.floor_char_boundary(TITLE_BYTES_MAX);
    extracted.title.truncate(end);
    Ok(extracted)
}

/// Readers that ran out of time and still go on.
static READERS_LATE: AtomicUsize = AtomicUsize::new(0);

/// How far a reader's thread is, as both sides see it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Late,
    Ended,
}

/// Held by the reader's thread; its end, by return or panic, takes it off the late ones.
struct Running(Arc<Mutex<Phase>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Late {
            READERS_LATE.fetch_sub(1, Ordering::Relaxed);
        }
        *phase = Phase::Ended;
    }
}

/// Runs a reader on a thread with a bound on its stack and time; its panic is an error.
fn guarded<T: Send + 'static>(
    kind: &str,
    time_max: Duration,
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ExtractError> {
    if READERS_LATE.load(Ordering::Relaxed) >= READERS_LATE_MAX {
        let why = format!(
            "{READERS_LATE_MAX} hanging files before it still keep their readers busy; index it \
             again later"
        );
        return Err(ExtractError::Failed(why));
    }
    let phase = Arc::new(Mutex::new(Phase::Running));
    let running = Running(Arc::clone(&phase));
    let (sender, receiver) = channel();
    let spawned = std::thread::Builder::new()
        .name(READER_THREAD.into())
        .stack_size(READER_STACK_BYTES)
        .spawn(move || {
            let _running = running;
            let _ = sender.send(read());
        });
    if let Err(error) = spawned {
        return Err(ExtractError::Failed(format!("no thread to read it: {error}")));
    }
    let why = match receiver.recv_timeout(time_max) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(why)) => format!("not readable as {kind}: {why}"),
        Err(RecvTimeoutError::Disconnected) => {
            format!("not readable as {kind}: its reader panicked, the file is damaged or hostile")
        }
        Err(RecvTimeoutError::Timeout) => {
            let mut phase = phase.lock().unwrap_or_else(PoisonError::into_inner);
            if *phase == Phase::Running {
                *phase = Phase::Late;
                READERS_LATE.fetch_add(1, Ordering::Relaxed);
            }
            format!("reading it as {kind} took more than {} ms", time_max.as_millis())
        }
    };
    Err(ExtractError::Failed(why))
}

/// The title in the front matter of a Markdown file, else the text of its first heading.
fn heading(text: &str) -> String {
    let beginning = &text[..text.floor_char_boundary(HEADING_BYTES_MAX)];
    let mut title = String::new();
    let (mut is_heading, mut is_metadata) = (false, false);
    for event in Parser::new_ext(beginning, Options::ENABLE_YAML_STYLE_METADATA_BLOCKS) {
        match event {
            Event::Start(Tag::MetadataBlock(_)) => is_metadata = true,
            Event::End(TagEnd::MetadataBlock(_)) => is_metadata = false,
            Event::Text(text) if is_metadata => {
                if let Some(found) = text.lines().find_map(|line| line.strip_prefix("title:")) {
                    return found.trim().trim_matches(['"', '\'']).to_string();
                }
            }
            Event::Start(Tag::Heading { .. }) => is_heading = true,
            Event::End(TagEnd::Heading(_)) if !title.trim().is_empty() => break,
            Event::Text(text) | Event::Code(text) if is_heading => title.push_str(&text),
            Event::SoftBreak if is_heading => title.push(' '),
            _ => {}
        }
    }
    title.trim().to_string()
}

fn html(text: &str) -> Result<Extracted, String> {
    let title = match title_element(text) {
        Some(inner) => {
            html_text(&format!("<p>{inner}</p>"))?.split_whitespace().collect::<Vec<_>>().join(" ")
        }
        None => String::new(),
    };
    Ok(Extracted { title, body: clean(&html_text(text)?), language: "" })
}

fn html_text(markup: &str) -> Result<String, String> {
    html2text::config::plain_no_decorate()
        .allow_width_overflow()
        .string_from_read(markup.as_bytes(), HTML_COLUMNS)
        .map_err(|error| error.to_string())
}

/// What stands between `<title>` and `</title>`, without markup of its own by the standard.
fn title_element(text: &str) -> Option<&str> {
    let head = &text[..text.floor_char_boundary(HEADING_BYTES_MAX)];
    // ASCII lower case keeps every byte in its place.
    let lower = head.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let start = start + lower[start..].find('>')? + 1;
    let end = start + lower[start..].find("</title")?;
    Some(&head[start..end])
}

/// Blanks at line ends off, and at most one empty line in a row.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = 1;
    for line in text.lines().map(str::trim_end) {
        empty = if line.is_empty() { empty + 1 } else { 0 };
        if empty < 2 {
            out.push_str(&line.replace('\0', ""));
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_string()
}

/// A document as a line of NDJSON gives it; fields as in the API.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The key.
    pub(crate) id: String,
    /// A headline.
    #[serde(default)]
    pub(crate) title: String,
    /// The text.
    #[serde(default)]
    pub(crate) body: String,
    /// Where it comes from.
    #[serde(default)]
    pub(crate) path: String,
    /// A programming or natural language.
    #[serde(default)]
    pub(crate) language: String,
    /// Labels.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Named values: strings, numbers, booleans. Dates are strings here.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, RecordValue>,
}

/// The value of an attribute.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub(crate) enum RecordValue {
    /// True or false.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// Text, or a date by RFC 3339.
    String(String),
}

/// The documents of NDJSON, one for each line that is not empty, with the number of the line from 1.
/// A line that cannot be read is an error of its own and never ends the rest.
pub(crate) fn records(text: &str) -> impl Iterator<Item = (usize, Result<Record, String>)> + '_ {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| (at + 1, serde_json::from_str(line).map_err(|error| error.to_string())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn extracted(name: &str, text: &str) -> Extracted {
        extract(name, text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn code_keeps_its_text_and_gets_its_language() {
        let code = "fn main() {}\r\n";
        let found = extracted("src/main.rs", code);
        assert_eq!(found, Extracted { title: String::new(), body: code.into(), language: "rust" });
    }

    #[test]
    fn markdown_keeps_its_text_and_lends_its_first_heading() {
        let text = "---\n\n```\n# not this\n```\n\nA `Big` Title\n===\n\n# Second\n";
        let found = extracted("README.md", text);
        assert_eq!((found.title.as_str(), found.body.as_str()), ("A Big Title", text));
        assert_eq!(found.language, "markdown");
        assert_eq!(extracted("a.md", "no heading").title, "");
        let front = "---\nlayout: post\ntitle: \"From the front\"\n---\n# Later\n";
        assert_eq!(extracted("post.md", front).title, "From the front");
    }

    #[test]
    fn html_becomes_title_and_text() {
        let page = "<!doctype html><HEAD><Title>Fish &amp;\n Chips</title><style>p{}</style></head>\
            <body><h1>Head</h1><p>One <b>two</b>.</p><script>no()</script><ul><li>item</ul>";
        let found = extracted("a.html", page);
        assert_eq!(found.title, "Fish & Chips");
        assert!(found.body.contains("Head") && found.body.contains("One two."), "{found:?}");
        assert!(found.body.contains("item") && !found.body.contains("no()"), "{found:?}");
    }

    #[test]
    fn deep_html_is_text_or_an_error_but_never_the_end() {
        let deep = "<div><b>".repeat(2_000) + "word";
        match extract("deep.html", deep.into_bytes()) {
            Ok(found) => assert!(found.body.contains("word")),
            Err(error) => assert!(matches!(error, ExtractError::Failed(_))),
        }
    }

    /// A PDF of one page with this content stream.
    fn pdf(content: &str) -> Vec<u8> {
        let objects = [
            "<</Type/Catalog/Pages 2 0 R>>".to_string(),
            "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_string(),
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R\
             /Resources<</Font<</F1 5 0 R>>>>>>"
                .to_string(),
            format!("<</Length {}>>\nstream\n{content}\nendstream", content.len()),
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>".to_string(),
        ];
        let mut out = "%PDF-1.4\n".to_string();
        let mut offsets = Vec::new();
        for (at, object) in objects.iter().enumerate() {
            offsets.push(out.len());
            out += &format!("{} 0 obj\n{object}\nendobj\n", at + 1);
        }
        let table = out.len();
        out += &format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
        for offset in offsets {
            out += &format!("{offset:010} 00000 n \n");
        }
        out += &format!("trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n{table}\n%%EOF\n");
        out.into_bytes()
    }

    #[test]
    fn pdf_becomes_text_with_its_first_line_as_title() {
        let file = pdf("BT /F1 12 Tf 72 720 Td (Hello Page) Tj ET");
        let found = extract("a.pdf", file).unwrap();
        assert_eq!(found.title, "Hello Page");
        assert_eq!(found.body, "Hello Page");
    }

    #[test]
    fn damaged_pdf_is_an_error() {
        quiet_reader_panics();
        let whole = pdf("BT /F1 12 Tf 72 720 Td (Hello Page) Tj ET");
        for at in (0..whole.len()).step_by(7) {
            let mut file = whole.clone();
            file[at] ^= 0x15;
            let _ = extract("a.pdf", file);
            let _ = extract("a.pdf", whole[..at].to_vec());
        }
        assert!(matches!(extract("a.pdf", b"no pdf".to_vec()), Err(ExtractError::Failed(_))));
    }

    #[test]
    fn a_reader_that_panics_or_hangs_is_reported() {
        quiet_reader_panics();
        let panicked = guarded::<()>("X", Duration::from_secs(9), || panic!("hostile"));
        assert!(matches!(panicked, Err(ExtractError::Failed(why)) if why.contains("panicked")));
        let (release, wait) = channel::<()>();
        let late = guarded::<()>("X", Duration::from_millis(1), move || {
            let _ = wait.recv();
            Ok(())
        });
        assert!(matches!(late, Err(ExtractError::Failed(why)) if why.contains("took more")));
        drop(release);
    }

    #[test]
    fn binary_files_are_no_text_whatever_their_name() {
        assert_eq!(extract("a.rs", b"a\0b".to_vec()), Err(ExtractError::Binary));
    }

    #[test]
    fn each_line_of_ndjson_is_a_document_or_an_error_of_its_own() {
        let text = "{\"id\":\"1\",\"body\":\"x\",\"attributes\":{\"n\":1,\"b\":true,\"s\":\"t\"}}\n\n\
            {\"id\":\"2\",\"colour\":1}\nnot json\n{\"id\":\"3\",\"tags\":[\"a\"]}";
        let found: Vec<_> = records(text).collect();
        let lines: Vec<_> = found.iter().map(|(line, record)| (*line, record.is_ok())).collect();
        assert_eq!(lines, [(1, true), (3, false), (4, false), (5, true)]);
        let first = found[0].1.as_ref().unwrap();
        assert_eq!(first.attributes["n"], RecordValue::Number(1.0));
        assert_eq!(first.attributes["b"], RecordValue::Boolean(true));
        assert!(found[1].1.as_ref().unwrap_err().contains("colour"));
    }
}
