//! [`parse`]: the text of a query to a tree, by tantivy's grammar.
//!
//! The parser recurses, so nesting is bounded before it runs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tantivy::query_grammar::{UserInputAst, UserInputLeaf, parse_query, parse_query_lenient};

use crate::request::SearchError;

/// The deepest nesting of parentheses and `NOT`: the parser recurses, and each level takes about
/// 2 KiB of a stack of at least 2 MiB.
const DEPTH_MAX: usize = 64;
/// The most words, phrases and ranges in one query.
const LEAVES_MAX: usize = 512;
/// How many places are tried to find where a query stops to make sense.
const ENDS_TRIED_MAX: usize = 64;

/// The tree of a query within all bounds, or what is wrong and where.
pub(super) fn parse(text: &str) -> Result<UserInputAst, SearchError> {
    check_depth(text)?;
    let tree = match catch_unwind(AssertUnwindSafe(|| parse_query(text))) {
        Ok(Ok(tree)) => tree,
        _ => return Err(syntax_error(text)),
    };
    let leaves = count_leaves(&tree);
    if leaves > LEAVES_MAX {
        return Err(SearchError::Bound {
            message: format!(
                "the query has {leaves} words, phrases and ranges, the bound is {LEAVES_MAX}; use \
                 fewer, or a filter"
            ),
        });
    }
    Ok(tree)
}

fn count_leaves(tree: &UserInputAst) -> usize {
    match tree {
        UserInputAst::Clause(children) => children.iter().map(|(_, tree)| count_leaves(tree)).sum(),
        UserInputAst::Boost(tree, _) => count_leaves(tree),
        UserInputAst::Leaf(leaf) => match leaf.as_ref() {
            UserInputLeaf::Set { elements, .. } => elements.len(),
            _ => 1,
        },
    }
}

/// Counts every `(` and `NOT` that no `)` has closed, quoted or not: a bound errs on the safe side.
fn check_depth(text: &str) -> Result<(), SearchError> {
    let mut open = 0usize;
    let mut negations = 0usize;
    for (at, word) in text.match_indices(['(', ')', 'N']) {
        match word {
            "(" => open += 1,
            ")" => open = open.saturating_sub(1),
            _ if text[at..].starts_with("NOT") => negations += 1,
            _ => {}
        }
        if open + negations > DEPTH_MAX {
            return Err(SearchError::Query {
                message: format!(
                    "parentheses and NOT are nested too deep, the bound is {DEPTH_MAX}; simplify the \
                     query or put the text in quotes"
                ),
                position: Some(at),
            });
        }
    }
    Ok(())
}

/// The strict grammar only says no; the lenient one knows where.
fn syntax_error(text: &str) -> SearchError {
    let errors = catch_unwind(AssertUnwindSafe(|| parse_query_lenient(text).1)).unwrap_or_default();
    let help = "put text with special characters in \"quotes\"";
    match errors.first() {
        Some(error) => {
            let mut position = error.pos.min(text.len());
            while !text.is_char_boundary(position) {
                position -= 1;
            }
            let message = format!("syntax error: {}; {help}", error.message);
            SearchError::Query { message, position: Some(position) }
        }
        None => {
            let message = format!("syntax error; {help}");
            SearchError::Query { message, position: end_of_sense(text) }
        }
    }
}

/// Where the longest beginning that can be read ends, among those that end before a special
/// character. Only so many are tried: each is a parse.
fn end_of_sense(text: &str) -> Option<usize> {
    let is_special = |c: char| "\"'()[]{}^:\\".contains(c);
    let ends = text.match_indices(is_special).map(|(at, _)| at).take(ENDS_TRIED_MAX);
    ends.filter(|&at| {
        catch_unwind(AssertUnwindSafe(|| parse_query(&text[..at]).is_ok())).unwrap_or(false)
    })
    .max()
}
