//! [`language`]: the language of a file, by its name or first line.
//!
//! Names are lower case and those that people type: `rust`, `cpp`, `csharp`, `shell`, `markdown`.

/// File names that say it all, in lower case.
const NAMES: &[(&str, &str)] = &[
    ("apkbuild", "shell"),
    (".bashrc", "shell"),
    (".gitignore", "gitignore"),
    (".profile", "shell"),
    (".vimrc", "vim"),
    (".zshrc", "shell"),
    ("build", "starlark"),
    ("build.bazel", "starlark"),
    ("cargo.lock", "toml"),
    ("cmakelists.txt", "cmake"),
    ("containerfile", "dockerfile"),
    ("dockerfile", "dockerfile"),
    ("gemfile", "ruby"),
    ("gnumakefile", "make"),
    ("go.mod", "gomod"),
    ("go.sum", "gomod"),
    ("jenkinsfile", "groovy"),
    ("justfile", "just"),
    ("kbuild", "make"),
    ("kconfig", "kconfig"),
    ("makefile", "make"),
    ("meson.build", "meson"),
    ("pkgbuild", "shell"),
    ("podfile", "ruby"),
    ("rakefile", "ruby"),
    ("sconstruct", "python"),
    ("vagrantfile", "ruby"),
    ("workspace", "starlark"),
];

/// Extensions in lower case, sorted.
const EXTENSIONS: &[(&str, &str)] = &[
    ("ada", "ada"),
    ("adb", "ada"),
    ("adoc", "asciidoc"),
    ("ads", "ada"),
    ("asciidoc", "asciidoc"),
    ("asm", "assembly"),
    ("astro", "astro"),
    ("awk", "awk"),
    ("bash", "shell"),
    ("bat", "batch"),
    ("bib", "bibtex"),
    ("bzl", "starlark"),
    ("c", "c"),
    ("c++", "cpp"),
    ("cbl", "cobol"),
    ("cc", "cpp"),
    ("cjs", "javascript"),
    ("clj", "clojure"),
    ("cljc", "clojure"),
    ("cljs", "clojure"),
    ("cmake", "cmake"),
    ("cmd", "batch"),
    ("cob", "cobol"),
    ("coffee", "coffeescript"),
    ("conf", "conf"),
    ("cpp", "cpp"),
    ("cr", "crystal"),
    ("cs", "csharp"),
    ("csh", "shell"),
    ("css", "css"),
    ("csv", "csv"),
    ("cu", "cuda"),
    ("cuh", "cuda"),
    ("cxx", "cpp"),
    ("d", "d"),
    ("dart", "dart"),
    ("diff", "diff"),
    ("dts", "devicetree"),
    ("dtsi", "devicetree"),
    ("el", "elisp"),
    ("elm", "elm"),
    ("erl", "erlang"),
    ("ex", "elixir"),
    ("exs", "elixir"),
    ("f", "fortran"),
    ("f03", "fortran"),
    ("f08", "fortran"),
    ("f77", "fortran"),
    ("f90", "fortran"),
    ("f95", "fortran"),
    ("fish", "shell"),
    ("frag", "glsl"),
    ("fs", "fsharp"),
    ("fsi", "fsharp"),
    ("fsx", "fsharp"),
    ("gd", "gdscript"),
    ("glsl", "glsl"),
    ("go", "go"),
    ("gql", "graphql"),
    ("gradle", "groovy"),
    ("graphql", "graphql"),
    ("groovy", "groovy"),
    ("h", "c"),
    ("h++", "cpp"),
    ("haml", "haml"),
    ("hbs", "handlebars"),
    ("hcl", "hcl"),
    ("hh", "cpp"),
    ("hlsl", "hlsl"),
    ("hpp", "cpp"),
    ("hrl", "erlang"),
    ("hs", "haskell"),
    ("htm", "html"),
    ("html", "html"),
    ("hxx", "cpp"),
    ("idr", "idris"),
    ("inc", "c"),
    ("ini", "ini"),
    ("ino", "cpp"),
    ("ipynb", "json"),
    ("java", "java"),
    ("jl", "julia"),
    ("js", "javascript"),
    ("json", "json"),
    ("json5", "json"),
    ("jsonc", "json"),
    ("jsonl", "json"),
    ("jsx", "javascript"),
    ("just", "just"),
    ("ksh", "shell"),
    ("kt", "kotlin"),
    ("kts", "kotlin"),
    ("lean", "lean"),
    ("less", "less"),
    ("lhs", "haskell"),
    ("lisp", "lisp"),
    ("log", "log"),
    ("lsp", "lisp"),
    ("lua", "lua"),
    ("m", "objectivec"),
    ("m4", "m4"),
    ("mak", "make"),
    ("markdown", "markdown"),
    ("md", "markdown"),
    ("mdx", "markdown"),
    ("mjs", "javascript"),
    ("mk", "make"),
    ("ml", "ocaml"),
    ("mli", "ocaml"),
    ("mm", "objectivec"),
    ("mts", "typescript"),
    ("ndjson", "json"),
    ("nim", "nim"),
    ("nix", "nix"),
    ("org", "org"),
    ("pas", "pascal"),
    ("patch", "diff"),
    ("php", "php"),
    ("pl", "perl"),
    ("pm", "perl"),
    ("po", "gettext"),
    ("pod", "perl"),
    ("properties", "properties"),
    ("proto", "protobuf"),
    ("ps1", "powershell"),
    ("psm1", "powershell"),
    ("pug", "pug"),
    ("purs", "purescript"),
    ("py", "python"),
    ("pyi", "python"),
    ("pyx", "python"),
    ("qml", "qml"),
    ("r", "r"),
    ("rake", "ruby"),
    ("rb", "ruby"),
    ("re", "reason"),
    ("rkt", "racket"),
    ("rmd", "markdown"),
    ("robot", "robot"),
    ("rs", "rust"),
    ("rst", "rst"),
    ("s", "assembly"),
    ("sass", "sass"),
    ("sbt", "scala"),
    ("scala", "scala"),
    ("scm", "scheme"),
    ("scss", "scss"),
    ("sh", "shell"),
    ("sol", "solidity"),
    ("sql", "sql"),
    ("ss", "scheme"),
    ("star", "starlark"),
    ("styl", "stylus"),
    ("sv", "verilog"),
    ("svelte", "svelte"),
    ("svg", "xml"),
    ("svh", "verilog"),
    ("swift", "swift"),
    ("tcl", "tcl"),
    ("tex", "latex"),
    ("tf", "hcl"),
    ("toml", "toml"),
    ("ts", "typescript"),
    ("tsv", "csv"),
    ("tsx", "typescript"),
    ("txt", "text"),
    ("v", "verilog"),
    ("vala", "vala"),
    ("vb", "vb"),
    ("vert", "glsl"),
    ("vhd", "vhdl"),
    ("vhdl", "vhdl"),
    ("vim", "vim"),
    ("vue", "vue"),
    ("wat", "wasm"),
    ("wgsl", "wgsl"),
    ("xml", "xml"),
    ("xsd", "xml"),
    ("xsl", "xml"),
    ("yaml", "yaml"),
    ("yml", "yaml"),
    ("zig", "zig"),
    ("zsh", "shell"),
];

/// Programs that a script's first line names, without their version.
const INTERPRETERS: &[(&str, &str)] = &[
    ("ash", "shell"),
    ("awk", "awk"),
    ("bash", "shell"),
    ("dash", "shell"),
    ("deno", "typescript"),
    ("fish", "shell"),
    ("gawk", "awk"),
    ("groovy", "groovy"),
    ("julia", "julia"),
    ("ksh", "shell"),
    ("lua", "lua"),
    ("make", "make"),
    ("node", "javascript"),
    ("nodejs", "javascript"),
    ("ocaml", "ocaml"),
    ("perl", "perl"),
    ("php", "php"),
    ("pwsh", "powershell"),
    ("python", "python"),
    ("rscript", "r"),
    ("ruby", "ruby"),
    ("sh", "shell"),
    ("tclsh", "tcl"),
    ("zsh", "shell"),
];

/// The language of a file by its name, then its extension, then its first line; empty when unknown.
pub(crate) fn language(name: &str, text: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    by_name(&file)
        .or_else(|| find(EXTENSIONS, file.rsplit_once('.')?.1))
        .or_else(|| by_first_line(text))
        .unwrap_or_default()
}

fn find(table: &[(&str, &'static str)], key: &str) -> Option<&'static str> {
    table.iter().find(|(name, _)| *name == key).map(|(_, language)| *language)
}

/// `Dockerfile`, and `Dockerfile.dev` or `Makefile.am` unless the extension says otherwise.
fn by_name(file: &str) -> Option<&'static str> {
    find(NAMES, file).or_else(|| {
        let (first, rest) = file.split_once('.')?;
        let is_known = find(EXTENSIONS, rest.rsplit('.').next()?).is_some();
        if is_known || !matches!(first, "dockerfile" | "makefile" | "kconfig") {
            return None;
        }
        find(NAMES, first)
    })
}

/// `#!/usr/bin/env -S python3.12 -u`.
fn by_first_line(text: &str) -> Option<&'static str> {
    let line = text.strip_prefix("#!")?.lines().next()?;
    let mut words = line.split_whitespace();
    let mut program = words.next()?.rsplit('/').next()?;
    if program == "env" {
        program = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
        program = program.rsplit('/').next()?;
    }
    let program = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    find(INTERPRETERS, &program.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_extension_and_first_line_decide_in_this_order() {
        for (name, text, expected) in [
            ("src/main.rs", "", "rust"),
            ("A/B/Foo.CPP", "", "cpp"),
            ("Dockerfile", "", "dockerfile"),
            ("dockerfile.dev", "", "dockerfile"),
            ("makefile.py", "", "python"),
            ("CMakeLists.txt", "", "cmake"),
            ("run", "#!/bin/bash -e\n", "shell"),
            ("run", "#!/usr/bin/env -S A=1 python3.12 -u\n", "python"),
            ("run", "#!/opt/x/node18", "javascript"),
            ("run.txt", "#!/bin/sh", "text"),
            ("unknown", "", ""),
            ("a.unknown", "", ""),
            ("", "#!", ""),
        ] {
            assert_eq!(language(name, text), expected, "{name}");
        }
    }

    #[test]
    fn the_tables_are_sorted_and_name_nothing_twice() {
        for table in [EXTENSIONS, INTERPRETERS] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        let mut languages: Vec<_> = EXTENSIONS.iter().map(|(_, language)| language).collect();
        languages.sort_unstable();
        languages.dedup();
        assert!(languages.len() >= 100, "{}", languages.len());
    }
}
