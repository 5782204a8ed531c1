//! What the run before knew, read in step with the walk: both are in the order of the names, so that each record is read once
//! and none is kept. What the walk does not come to is passed over.

use std::cmp::Ordering;
use std::io::{self, BufRead};

use super::record::{Fingerprint, Record, Row, TreeHash, wrong};

/// Pieces of one directory's tree that are remembered.
const MAX_PIECES: usize = 10_000;

/// Reads the records of one cache.
pub struct Reader<R> {
    from: R,
    peeked: Option<Record>,
    /// Levels that the walk is in and the cache has not.
    absent: usize,
    /// Of each level that both are in: the pieces of its tree.
    pieces: Vec<Vec<(TreeHash, Row)>>,
    /// Between a file's beginning and its end.
    is_in_file: bool,
    is_done: bool,
}

impl<R: BufRead> Reader<R> {
    /// From the first record on.
    pub fn new(from: R) -> Self {
        Self {
            from,
            peeked: None,
            absent: 0,
            pieces: Vec::new(),
            is_in_file: false,
            is_done: false,
        }
    }

    fn peek(&mut self) -> io::Result<Option<&Record>> {
        if self.peeked.is_none() && !self.is_done {
            self.peeked = Record::read(&mut self.from)?;
            self.is_done = self.peeked.is_none();
        }
        Ok(self.peeked.as_ref())
    }

    /// The next record, whatever it is.
    pub fn take(&mut self) -> io::Result<Option<Record>> {
        self.peek()?;
        Ok(self.peeked.take())
    }

    /// The walk enters a directory.
    pub fn enter(&mut self, name: &[u8]) -> io::Result<()> {
        if self.absent == 0 && self.reach(name)? && matches!(self.peek()?, Some(Record::Enter(_))) {
            self.peeked = None;
            self.pieces.push(Vec::new());
        } else {
            self.absent += 1;
        }
        Ok(())
    }

    /// The walk leaves the directory.
    pub fn leave(&mut self) -> io::Result<()> {
        if self.absent > 0 {
            self.absent -= 1;
            return Ok(());
        }
        self.pieces.pop();
        self.skip_rest()
    }

    /// What the file of this name was, whose chunks and end come next.
    pub fn find(&mut self, name: &[u8]) -> io::Result<Option<Fingerprint>> {
        if self.absent > 0 || !self.reach(name)? {
            return Ok(None);
        }
        let Some(Record::Begin(_, fingerprint)) = self.peek()? else {
            return Ok(None);
        };
        let fingerprint = *fingerprint;
        self.peeked = None;
        self.is_in_file = true;
        Ok(Some(fingerprint))
    }

    /// Chunks of the file that was found; an end is the last.
    pub fn next_of_file(&mut self) -> io::Result<Record> {
        match self.take()? {
            Some(end @ Record::End(_)) => {
                self.is_in_file = false;
                Ok(end)
            }
            Some(chunks @ Record::Chunks(_)) => Ok(chunks),
            Some(Record::Enter(_) | Record::Begin(..) | Record::Tree(..) | Record::Leave)
            | None => Err(wrong("a file does not end")),
        }
    }

    /// To the end of the file that was found.
    pub fn skip_file(&mut self) -> io::Result<()> {
        while self.is_in_file {
            self.next_of_file()?;
        }
        Ok(())
    }

    /// The chunk of a piece of the tree of the directory that the walk is in.
    pub fn find_piece(&mut self, hash: &TreeHash) -> io::Result<Option<Row>> {
        if self.absent > 0 {
            return Ok(None);
        }
        self.collect_pieces()?;
        let pieces = self.pieces.last();
        let found = pieces.and_then(|pieces| pieces.iter().find(|(known, _)| known == hash));
        Ok(found.map(|(_, row)| *row))
    }

    /// How many levels of the walk the cache has not.
    pub fn absent(&self) -> usize {
        self.absent
    }

    fn collect_pieces(&mut self) -> io::Result<()> {
        while let Some(Record::Tree(hash, row)) = self.peek()? {
            let piece = (*hash, *row);
            self.peeked = None;
            let pieces = self.pieces.last_mut();
            if let Some(pieces) = pieces.filter(|pieces| pieces.len() < MAX_PIECES) {
                pieces.push(piece);
            }
        }
        Ok(())
    }

    /// Up to the first entry that is not before `name`; whether it is the one.
    fn reach(&mut self, name: &[u8]) -> io::Result<bool> {
        self.skip_file()?;
        loop {
            self.collect_pieces()?;
            let (order, is_directory) = match self.peek()? {
                Some(Record::Enter(known)) => (known.as_slice().cmp(name), true),
                Some(Record::Begin(known, _)) => (known.as_slice().cmp(name), false),
                Some(Record::Leave) | None => return Ok(false),
                Some(Record::Chunks(_) | Record::End(_) | Record::Tree(..)) => {
                    return Err(wrong("a record is out of its place"));
                }
            };
            match order {
                Ordering::Less => {
                    self.peeked = None;
                    if is_directory {
                        self.skip_rest()?;
                    } else {
                        self.is_in_file = true;
                        self.skip_file()?;
                    }
                }
                Ordering::Equal => return Ok(true),
                Ordering::Greater => return Ok(false),
            }
        }
    }

    /// Past the end of the directory that the cache is in.
    fn skip_rest(&mut self) -> io::Result<()> {
        let mut depth = 1_u64;
        self.is_in_file = false;
        while depth > 0 {
            match self.take()? {
                Some(Record::Enter(_)) => depth += 1,
                Some(Record::Leave) => depth -= 1,
                Some(Record::Begin(..) | Record::Chunks(_) | Record::End(_) | Record::Tree(..)) => {
                }
                None => return Err(wrong("a directory does not end")),
            }
        }
        Ok(())
    }
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}
