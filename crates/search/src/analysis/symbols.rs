//! [`names`]: the names that a source file defines, for the `symbols` field.
//!
//! Lines are read one by one, without a parser: what matters is that the functions, types and macros
//! of the common languages are found in code as people lay it out, at the speed of reading. A name that
//! is missed still stands in the body; a wrong one costs a little precision. Two patterns:
//!
//! - a defining keyword, perhaps behind modifiers, and a name: `pub fn name`, `class Name`, `#define NAME`;
//! - a name before a parenthesis on a line that opens a block (`void name(int a) {`), or that starts at
//!   the first column and does not end a statement (the C style with the brace on the next line).

/// Names on lines longer than this are not looked for: such lines are generated or minified.
const LINE_BYTES_MAX: usize = 400;

/// Languages by the names and short names in use.
const LANGUAGES: [&str; 60] = [
    "ada",
    "bash",
    "c",
    "c#",
    "c++",
    "clojure",
    "cpp",
    "crystal",
    "csharp",
    "css",
    "cuda",
    "cxx",
    "d",
    "dart",
    "elixir",
    "erlang",
    "ex",
    "f#",
    "fortran",
    "fsharp",
    "glsl",
    "go",
    "golang",
    "groovy",
    "h",
    "haskell",
    "hpp",
    "java",
    "javascript",
    "js",
    "jsx",
    "julia",
    "kotlin",
    "lua",
    "matlab",
    "nim",
    "objc",
    "objective-c",
    "ocaml",
    "perl",
    "php",
    "powershell",
    "proto",
    "protobuf",
    "py",
    "python",
    "r",
    "rb",
    "rs",
    "ruby",
    "rust",
    "scala",
    "sh",
    "shell",
    "solidity",
    "sql",
    "swift",
    "ts",
    "typescript",
    "zig",
];

/// Words after which a name is defined.
const KEYWORDS: [&str; 35] = [
    "class",
    "contract",
    "data",
    "def",
    "defmacro",
    "defmodule",
    "defn",
    "defp",
    "enum",
    "extension",
    "fn",
    "fun",
    "func",
    "function",
    "instance",
    "interface",
    "macro",
    "macro_rules!",
    "message",
    "mod",
    "module",
    "namespace",
    "newtype",
    "object",
    "package",
    "proc",
    "procedure",
    "protocol",
    "record",
    "service",
    "struct",
    "sub",
    "trait",
    "type",
    "union",
];

/// Words that may stand before a keyword.
const MODIFIERS: [&str; 30] = [
    "abstract",
    "async",
    "case",
    "const",
    "create",
    "data",
    "default",
    "export",
    "extern",
    "external",
    "fileprivate",
    "final",
    "inline",
    "internal",
    "local",
    "open",
    "or",
    "override",
    "partial",
    "private",
    "protected",
    "pub",
    "public",
    "replace",
    "sealed",
    "static",
    "typedef",
    "unsafe",
    "value",
    "virtual",
];

/// Words before a parenthesis that are no name of a function.
const STATEMENTS: [&str; 24] = [
    "assert", "await", "case", "catch", "do", "elif", "else", "except", "for", "foreach",
    "function", "if", "in", "match", "new", "not", "return", "sizeof", "switch", "throw", "until",
    "using", "while", "with",
];

/// Calls `visit` with each name that the text defines, in order; a name may come more than once.
/// A `language` that is natural, unknown or empty defines nothing.
pub fn names<'a>(language: &str, text: &'a str, visit: &mut dyn FnMut(&'a str)) {
    if LANGUAGES.binary_search(&language).is_err() {
        return;
    }
    for line in text.lines() {
        if line.len() <= LINE_BYTES_MAX
            && let Some(name) = name_in(line)
        {
            visit(name);
        }
    }
}

fn name_in(line: &str) -> Option<&str> {
    let code = line.trim();
    let first = *code.as_bytes().first()?;
    if first == b'#' {
        let rest = code[1..].trim_start().strip_prefix("define")?;
        return rest.starts_with([' ', '\t']).then(|| leading_name(rest.trim_start()))?;
    }
    if !is_name_byte(first) || code.starts_with("--") {
        return None;
    }
    after_keyword(code).or_else(|| before_parenthesis(line, code))
}

/// `pub(crate) struct Name`, `func (receiver *T) Name(`, `create or replace function name`.
fn after_keyword(code: &str) -> Option<&str> {
    let mut rest = code;
    loop {
        let (word, after) = rest.split_at(word_length(rest));
        if KEYWORDS.binary_search(&word).is_ok() && after.starts_with([' ', '\t', '(']) {
            let mut after = after.trim_start();
            if after.starts_with('(') {
                after = after[after.find(')')? + 1..].trim_start();
            }
            if KEYWORDS.binary_search(&&after[..word_length(after)]).is_ok() {
                rest = after;
                continue;
            }
            let name = leading_name(after)?;
            return is_definition(word, after[name.len()..].trim_start()).then_some(name);
        }
        if MODIFIERS.binary_search(&word).is_err() {
            return None;
        }
        rest = after.trim_start();
        if rest.starts_with('(') {
            rest = rest[rest.find(')')? + 1..].trim_start();
        }
        if rest.starts_with('"') {
            rest = rest[1..].split_once('"')?.1.trim_start();
        }
        if rest.is_empty() || !is_name_byte(rest.as_bytes()[0]) {
            return None;
        }
    }
}

/// Whether what stands behind a name fits a definition: `struct name *p`, `struct name f(` use it only.
fn is_definition(keyword: &str, behind: &str) -> bool {
    let aggregate = matches!(keyword, "struct" | "union" | "enum");
    behind.is_empty()
        || behind.starts_with(['(', '<', '{', ':', '=', '[', ';', '!', '\''])
        || (!aggregate && behind.starts_with(is_name_character))
        || (aggregate && (behind.starts_with("where") || behind.starts_with("final")))
}

fn before_parenthesis<'a>(line: &str, code: &'a str) -> Option<&'a str> {
    let open = code.find('(')?;
    let opens_block = code.ends_with('{');
    let at_margin = line.starts_with(is_name_character)
        && code[..open].contains([' ', '\t'])
        && code.ends_with([')', ',']);
    if !opens_block && !at_margin {
        return None;
    }
    let head = code[..open].trim_end();
    if head.contains(['=', '"', '.', '\'', '{', '+', '|', '?']) {
        return None;
    }
    let start = head
        .rfind(|character| !is_name_character(character))
        .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
    let name = &head[start..];
    let first_word = &head[..word_length(head)];
    let is_name = !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && STATEMENTS.binary_search(&name).is_err()
        && STATEMENTS.binary_search(&first_word).is_err();
    is_name.then_some(name)
}

fn leading_name(code: &str) -> Option<&str> {
    let end = code.find(|character| !is_name_character(character)).unwrap_or(code.len());
    let name = &code[..end];
    (!name.is_empty() && !name.as_bytes()[0].is_ascii_digit()).then_some(name)
}

fn word_length(code: &str) -> usize {
    let end = code.find(|character| !is_name_character(character)).unwrap_or(code.len());
    if code[end..].starts_with('!') { end + 1 } else { end }
}

fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(language: &str, text: &'static str) -> Vec<&'static str> {
        let mut found = Vec::new();
        names(language, text, &mut |name| found.push(name));
        found
    }

    #[test]
    fn the_tables_are_in_order() {
        assert!(LANGUAGES.is_sorted() && KEYWORDS.is_sorted() && STATEMENTS.is_sorted());
        let mut modifiers = MODIFIERS;
        modifiers.sort_unstable();
        assert_eq!(modifiers, MODIFIERS);
    }

    #[test]
    fn rust() {
        let text = "pub(crate) async fn run<T>(a: T) -> u8 {\n    let x = call(1);\n    if ready(x) {\n}\n\
                    macro_rules! vec_of {\npub struct Point;\n  pub unsafe extern \"C\" fn raw() {}\nimpl Point {\n\
                    type Item = u8;\nuse std::fmt;\n// fn commented() {}\n";
        assert_eq!(found("rust", text), ["run", "vec_of", "Point", "raw", "Item"]);
    }

    #[test]
    fn python() {
        let text = "class Shape(Base):\n    async def area(self):\n        return width(2)\n\ndef main():\n    x = f(1)\n# def no():\n";
        assert_eq!(found("python", text), ["Shape", "area", "main"]);
    }

    #[test]
    fn c_with_the_brace_on_either_line() {
        let text = "#define MAX_LEN 10\n# define ODD(x) x\n#include <a.h>\nstatic int sched_fork(struct task *p,\n\t\tint flags)\n{\n\
                    \tif (p) {\n\treturn run(p);\n}\nstruct rq *task_rq_lock(struct task *p)\n{\nint puts(const char *s);\n\
                    struct rq {\nenum state {\nvoid *alloc(size_t n) {\nEXPORT_SYMBOL(alloc);\nstruct rq *global;\n";
        assert_eq!(
            found("c", text),
            ["MAX_LEN", "ODD", "sched_fork", "task_rq_lock", "rq", "state", "alloc"]
        );
    }

    #[test]
    fn go_java_typescript_and_sql() {
        assert_eq!(
            found(
                "go",
                "func (s *Server) Handle(w Writer) {\nfunc New() *Server {\ntype Server struct {\n"
            ),
            ["Handle", "New", "Server"]
        );
        assert_eq!(
            found(
                "java",
                "public final class Parser {\n  public static void main(String[] args) {\n  for (int i : x) {\n"
            ),
            ["Parser", "main"]
        );
        assert_eq!(
            found(
                "typescript",
                "export default class App {\nexport async function load(a) {\n  render(x: number) {\ninterface Props {\n"
            ),
            ["App", "load", "render", "Props"]
        );
        assert_eq!(found("sql", "create or replace function total(a int)\n"), ["total"]);
    }

    #[test]
    fn prose_defines_nothing() {
        assert!(found("en", "class struggles (of all kinds) {\n").is_empty());
        assert!(found("", "def f():\n").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([a-z#(){}*;:=<>.\"' \n\té界_!-]|fn |def |struct |pub |type ){0,60}") {
            for language in ["c", "rust", "go", "sql"] {
                names(language, &text, &mut |name| assert!(!name.is_empty()));
            }
        }
    }
}
