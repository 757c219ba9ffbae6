//! Prints the tokens of each text: one JSON string a line in, one list of numbers a line out.
//!
//! `models/reproduce/check_tokens.py` compares this with the reference tokeniser.

use std::io::{self, BufRead, Write};

use mainstay_embed::WordPiece;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wordpiece = WordPiece::built_in()?;
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut tokens = Vec::new();
    for line in io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        tokens.clear();
        wordpiece.encode(&text, usize::MAX, &mut tokens);
        let numbers: Vec<_> = tokens.iter().map(u32::to_string).collect();
        writeln!(output, "{}", numbers.join(" "))?;
    }
    output.flush()?;
    Ok(())
}
