//! How answers look in a terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Color, Style};
use mainstay_server::wire::{LineJson, SearchAnswerJson, SearchHitJson};

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// For errors.
pub(crate) const BAD: Style = colour(AnsiColor::Red).bold();
/// For what is well.
pub(crate) const GOOD: Style = colour(AnsiColor::Green);
/// For what needs attention.
pub(crate) const WARNING: Style = colour(AnsiColor::Yellow);
/// For what may be passed over.
pub(crate) const QUIET: Style = Style::new().dimmed();
const PATH: Style = colour(AnsiColor::Magenta).bold();
const LINE: Style = colour(AnsiColor::Green);
const MATCH: Style = colour(AnsiColor::Red).bold();

/// A text in a style.
pub(crate) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints an answer for people.
pub(crate) fn answer(answer: &SearchAnswerJson) {
    for hit in &answer.results {
        anstream::print!("{}", hit_text(hit));
    }
    for (field, values) in &answer.facets {
        let counts: Vec<String> =
            values.iter().map(|one| format!("{} {}", one.value, one.count)).collect();
        anstream::println!("{}  {}", styled(PATH, field), counts.join(", "));
    }
    for method in answer.methods.iter().filter(|method| method.status != "ok") {
        anstream::eprintln!(
            "{} {} {}: {}",
            styled(WARNING, "without"),
            method.method,
            method.status,
            method.reason
        );
    }
    if let Some(refinement) = &answer.refinement
        && refinement.done < refinement.total
    {
        anstream::eprintln!(
            "{}",
            styled(
                QUIET,
                &format!(
                    "meaning: {} of {} passages have the better model's vector so far",
                    refinement.done, refinement.total
                )
            )
        );
    }
    let shown = answer.results.len();
    let about = if answer.total_is_exact { "" } else { "at least " };
    let summary = format!("{shown} of {about}{} in {:.1} ms", answer.total, answer.duration_ms);
    anstream::eprintln!("{}", styled(QUIET, &summary));
}

fn hit_text(hit: &SearchHitJson) -> String {
    let document = &hit.document;
    let name = if document.path.is_empty() { &document.id } else { &document.path };
    let mut text = styled(PATH, name);
    if !document.title.is_empty() {
        let _ = write!(text, "  {}", document.title);
    }
    let badges = format!("[{}] {:.3}", hit.methods.join(" "), hit.score);
    let _ = writeln!(text, "  {}", styled(QUIET, &badges));
    for line in &hit.lines {
        let mark = if line.column > 0 { ':' } else { '-' };
        let number = styled(LINE, &format!("{}{mark}", line.line));
        let _ = writeln!(text, "  {number} {}", line_text(line));
    }
    if let (true, Some(snippet)) = (hit.lines.is_empty(), &hit.snippet) {
        for (at, line) in snippet.text.lines().enumerate().take(4) {
            let number = styled(LINE, &format!("{}:", snippet.line as usize + at));
            let _ = writeln!(text, "  {number} {}", line.trim_end());
        }
    }
    for part in &hit.explanation {
        let line = format!(
            "    {:8} rank {:3}  score {:9.4}  normalised {:.3}  weight {:.3}",
            part.method, part.rank, part.score, part.normalised, part.weight
        );
        let _ = writeln!(text, "{}", styled(QUIET, &line));
    }
    text.push('\n');
    text
}

/// The widest piece of a line that is shown, in bytes; generated code has lines of megabytes.
const LINE_BYTES_MAX: usize = 300;

/// A line with its matches in colour, cut around the first one when it is long.
fn line_text(line: &LineJson) -> String {
    let first = line.highlights.first().map_or(0, |[start, _]| *start);
    let from = if line.text.len() > LINE_BYTES_MAX { first.saturating_sub(80) } else { 0 };
    let from = line.text.floor_char_boundary(from);
    let to = line.text.floor_char_boundary(from + LINE_BYTES_MAX);
    let mut text = String::new();
    let mut at = from;
    for [start, end] in &line.highlights {
        let (start, end) = ((*start).clamp(at, to), (*end).clamp(at, to));
        let (Some(before), Some(inside)) = (line.text.get(at..start), line.text.get(start..end))
        else {
            continue;
        };
        text.push_str(before);
        text.push_str(&styled(MATCH, inside));
        at = end;
    }
    text.push_str(line.text.get(at..to).unwrap_or_default());
    if from > 0 {
        text.insert(0, '…');
    }
    if to < line.text.len() {
        text.push('…');
    }
    text
}
