//! [`StoredTexts`]: stored text in memory, as the documents view hands it out.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use mainstay_search::document::{DocNumber, Document};
use mainstay_search::request::{SearchError, Text, Texts};

/// Documents by number.
#[derive(Clone, Debug, Default)]
pub struct StoredTexts(pub BTreeMap<DocNumber, Document>);

impl Texts for StoredTexts {
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        assert!(numbers.is_sorted_by(|a, b| a < b), "texts are asked for in rising order");
        for number in numbers {
            if let Some(Document { title, path, language, body, .. }) = self.0.get(number)
                && visit(*number, Text { title, path, language, body }).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}
