//! Rows of text under headings, as wide as what they hold.

use anstyle::Style;

use crate::print::QUIET;

/// Prints rows; each cell has its style.
pub(crate) fn print(headings: &[&str], rows: &[Vec<(String, Style)>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let longest = cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0);
        longest.max(headings.get(column).map_or(0, |heading| heading.chars().count()))
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = (&str, Style)>| {
        let mut line = String::new();
        for ((text, style), width) in cells.zip(&widths) {
            let padding = " ".repeat(width.saturating_sub(text.chars().count()) + 2);
            line.push_str(&format!("{style}{text}{style:#}{padding}"));
        }
        anstream::println!("{}", line.trim_end());
    };
    line(&mut headings.iter().map(|heading| (*heading, QUIET)));
    for row in rows {
        line(&mut row.iter().map(|(text, style)| (text.as_str(), *style)));
    }
}

/// A cell without a style.
pub(crate) fn plain(text: impl Into<String>) -> (String, Style) {
    (text.into(), Style::new())
}

/// Milliseconds as people say them.
pub(crate) fn ago(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}
