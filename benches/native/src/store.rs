//! [`Store`]: stored text in memory, plain or in LZ4 blocks, so that both can be measured.

use std::ops::ControlFlow;

use mainstay_search::document::DocNumber;
use mainstay_search::request::{SearchError, Text, Texts};

/// Where a document lies: its block, and its bytes in the decompressed block.
struct Place {
    block: u32,
    start: u32,
    end: u32,
}

/// Documents numbered from 0, in order.
pub struct Store {
    compressed: bool,
    /// Blocks hold whole documents and are closed at this size.
    block_bytes: usize,
    paths: Vec<String>,
    places: Vec<Place>,
    blocks: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Store {
    /// An empty store.
    pub fn new(compressed: bool, block_bytes: usize) -> Self {
        let (paths, places, blocks) = (Vec::new(), Vec::new(), Vec::new());
        Self { compressed, block_bytes, paths, places, blocks, open: Vec::new() }
    }

    /// Adds the next document.
    pub fn add(&mut self, path: &str, body: &str) {
        let start = self.open.len() as u32;
        self.open.extend_from_slice(body.as_bytes());
        let end = self.open.len() as u32;
        self.paths.push(path.to_string());
        self.places.push(Place { block: self.blocks.len() as u32, start, end });
        if self.open.len() >= self.block_bytes {
            self.close();
        }
    }

    /// Ends the last block.
    pub fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        let block = match self.compressed {
            true => lz4_flex::compress_prepend_size(&open),
            false => open,
        };
        self.blocks.push(block);
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }

    /// The path of a document.
    pub fn path(&self, number: DocNumber) -> &str {
        &self.paths[number as usize]
    }
}

impl Texts for Store {
    fn visit(
        &self,
        numbers: &[DocNumber],
        visit: &mut dyn FnMut(DocNumber, Text<'_>) -> ControlFlow<()>,
    ) -> Result<(), SearchError> {
        let mut opened = None;
        let mut buffer = Vec::new();
        for &number in numbers {
            let place = &self.places[number as usize];
            let block = &self.blocks[place.block as usize];
            let bytes = if self.compressed {
                if opened != Some(place.block) {
                    let (size, packed) = lz4_flex::block::uncompressed_size(block)
                        .map_err(|error| SearchError::Failed(Box::new(error)))?;
                    buffer.resize(size, 0);
                    lz4_flex::block::decompress_into(packed, &mut buffer)
                        .map_err(|error| SearchError::Failed(Box::new(error)))?;
                    opened = Some(place.block);
                }
                &buffer[place.start as usize..place.end as usize]
            } else {
                &block[place.start as usize..place.end as usize]
            };
            let body =
                std::str::from_utf8(bytes).map_err(|error| SearchError::Failed(Box::new(error)))?;
            let path = self.path(number);
            let text = Text { title: "", path, language: "", body };
            if visit(number, text).is_break() {
                break;
            }
        }
        Ok(())
    }
}
