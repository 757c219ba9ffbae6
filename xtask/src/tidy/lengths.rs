//! Files and functions stay short; what is longer is named here with its reason, and the list may
//! only shrink.

use super::Source;

/// Lines of a file, tests cut off.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that may be longer.
const LONG_FILES: &[&str] = &[];
/// Functions that may be longer, as `path:name`.
const LONG_FUNCTIONS: &[&str] = &[
    // One arm for each variant: a table.
    "crates/embed/src/error.rs:fmt",
];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let lines = source.without_tests().lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.contains(&source.path.as_str()) {
            faults.push(format!("{}: {lines} lines, the bound is {FILE_LINES_MAX}", source.path));
        }
        for (name, line, lines) in functions(source.without_tests()) {
            let named = format!("{}:{name}", source.path);
            if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.contains(&named.as_str()) {
                faults.push(format!(
                    "{}:{line}: function {name} has {lines} lines, the bound is {FUNCTION_LINES_MAX}",
                    source.path
                ));
            }
        }
    }
    faults
}

/// Name, first line and length of each function, by the indentation that rustfmt gives.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let Some((head, rest)) = code.split_once("fn ") else { continue };
        let keywords = head.split_whitespace().all(|word| {
            ["pub", "const", "async", "unsafe", "extern", "\"C\""].contains(&word)
                || word.starts_with("pub(")
        });
        if !keywords {
            continue;
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let close = format!("{}}}", " ".repeat(indent));
        let mut end = at;
        while end < lines.len() {
            let ends_here = lines[end] == close || (end == at && code.ends_with('}'));
            let only_declared = lines[end].ends_with(';')
                && lines[end].len() - lines[end].trim_start().len() == indent;
            if ends_here || only_declared {
                break;
            }
            end += 1;
        }
        found.push((name, at + 1, end.saturating_sub(at) + 1));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::functions;

    #[test]
    fn a_function_reaches_to_its_closing_brace() {
        let text = "impl A {\n    pub fn long(\n        x: u8,\n    ) {\n        x;\n    }\n}\nfn short() {}\ntrait T {\n    fn none(&self);\n}\n";
        let found = functions(text);
        assert_eq!(found, [("long".into(), 2, 5), ("short".into(), 8, 1), ("none".into(), 10, 1)]);
    }
}
