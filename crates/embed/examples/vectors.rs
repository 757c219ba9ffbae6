//! Prints the vector of each text, to compare a model here with where it came from.
//!
//! `vectors auto|static|minilm|PATH`: one JSON string a line in, one list of numbers a line out.

use std::io::{self, BufRead, Write};

use mainstay_embed::{Kind, ModelChoice, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let choice: ModelChoice = std::env::args().nth(1).unwrap_or("auto".into()).parse()?;
    let opened = open(&choice)?;
    let model = opened.refined.or(opened.first).ok_or("no model was opened")?;
    eprintln!("{}", model.identity());
    let mut output = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let vectors = model.embed(&[&text], Kind::Passage)?;
        writeln!(output, "{}", serde_json::to_string(vectors.as_slice())?)?;
    }
    output.flush()?;
    Ok(())
}
