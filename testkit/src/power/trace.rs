//! Reads what `strace -f -y -xx` wrote: the calls that changed files below a directory, in order.
//!
//! A call has a start and an end, because another thread's may lie between. What this file does not
//! understand about the directory is an error, never skipped: a change that went unseen would make
//! every verdict after it worthless.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::mark::Mark;

/// A call that succeeded, from its line to that of its return.
#[derive(Debug)]
pub struct Event {
    pub start: usize,
    pub end: usize,
    pub call: Call,
}

#[derive(Debug)]
pub enum Call {
    /// Opened for making or emptying it.
    Create {
        path: PathBuf,
        truncate: bool,
    },
    Mkdir {
        path: PathBuf,
    },
    Write {
        path: PathBuf,
        /// `None`: at the end.
        offset: Option<u64>,
        data: Vec<u8>,
    },
    Copy {
        from: PathBuf,
        from_offset: u64,
        path: PathBuf,
        offset: u64,
        len: u64,
    },
    Truncate {
        path: PathBuf,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// fsync or fdatasync: one is as good as the other for data that can be read back.
    Sync {
        path: PathBuf,
    },
    Mark(Mark),
}

/// The trace in `text` of a run with its spool in `root` and its marks in `marks`.
pub fn read(text: &str, root: &Path, marks: &Path) -> anyhow::Result<Vec<Event>> {
    let mut reader = Reader {
        root,
        marks,
        places: HashMap::new(),
        open: HashMap::new(),
        events: Vec::new(),
    };
    for (index, line) in text.lines().enumerate() {
        let shown = || format!("line {}: {}", index + 1, line.get(..200).unwrap_or(line));
        reader.line(index, line).with_context(shown)?;
    }
    reader.events.sort_by_key(|event| event.start);
    Ok(reader.events)
}

struct Reader<'a> {
    root: &'a Path,
    marks: &'a Path,
    /// Where the next plain `write` of a descriptor goes; `None` is the end. Descriptors of two processes never name the same
    /// path at once, so a process need not be told from another.
    places: HashMap<(PathBuf, String), Option<u64>>,
    /// Calls that have not returned, by thread.
    open: HashMap<&'a str, (usize, &'a str)>,
    events: Vec<Event>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, index: usize, line: &'a str) -> anyhow::Result<()> {
        let (thread, rest) = line.split_once(' ').context("no thread")?;
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return Ok(());
        }
        // A thread stopped before a call, and its process ended: the kernel never made the call.
        if rest.starts_with("???(") && rest.ends_with("<detached ...>") {
            return Ok(());
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (start, head) = self.open.remove(thread).context("resumed from nothing")?;
            let (_, tail) = resumed.split_once(" resumed>").context("no end")?;
            return self.call(start, index, &format!("{head}{tail}"));
        }
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            self.open.insert(thread, (index, head.trim_end()));
            return Ok(());
        }
        self.call(index, index, rest)
    }

    fn call(&mut self, start: usize, end: usize, text: &str) -> anyhow::Result<()> {
        let (call, returned) = text.rsplit_once(" = ").context("no return")?;
        if returned.starts_with(['-', '?']) {
            return Ok(());
        }
        let (name, rest) = call.split_once('(').context("no arguments")?;
        let rest = rest.trim_end();
        let rest = rest.strip_suffix(')').context("no closing bracket")?;
        let arguments = Arguments(rest.split(", ").collect());
        if let Some(call) = self.understand(name, &arguments, returned)? {
            self.events.push(Event { start, end, call });
        }
        Ok(())
    }

    fn understand(
        &mut self,
        name: &str,
        arguments: &Arguments,
        returned: &str,
    ) -> anyhow::Result<Option<Call>> {
        let path = arguments.subject(name)?;
        if path == self.marks && name == "write" {
            let mark = serde_json::from_slice(&arguments.data(1)?)?;
            return Ok(Some(Call::Mark(mark)));
        }
        if !path.starts_with(self.root) {
            return Ok(None);
        }
        Ok(Some(match name {
            "open" | "openat" => {
                let flags = arguments.0.get(if name == "open" { 1 } else { 2 });
                let flags: Vec<_> = flags.context("no flags")?.split('|').collect();
                let (descriptor, _) = descriptor(returned)?;
                let place = (!flags.contains(&"O_APPEND")).then_some(0);
                self.places.insert((path.clone(), descriptor), place);
                let truncate = flags.contains(&"O_TRUNC");
                if !truncate && !flags.contains(&"O_CREAT") {
                    return Ok(None);
                }
                Call::Create { path, truncate }
            }
            "mkdir" | "mkdirat" => Call::Mkdir { path },
            "rename" => Call::Rename {
                from: path,
                to: arguments.path(1)?,
            },
            "renameat" | "renameat2" => Call::Rename {
                from: path,
                to: arguments.path_at(2)?,
            },
            "unlink" | "unlinkat" | "rmdir" => Call::Remove { path },
            "fsync" | "fdatasync" => Call::Sync { path },
            "ftruncate" => Call::Truncate {
                path,
                len: arguments.number(1)?,
            },
            "lseek" => {
                let (descriptor, _) = arguments.descriptor(0)?;
                self.places
                    .insert((path, descriptor), Some(returned.parse()?));
                return Ok(None);
            }
            "write" | "pwrite64" => {
                let mut data = arguments.data(1)?;
                data.truncate(returned.parse()?);
                let offset = if name == "write" {
                    self.advance(&arguments.descriptor(0)?, data.len() as u64)
                } else {
                    Some(arguments.number(3)?)
                };
                Call::Write { path, offset, data }
            }
            "copy_file_range" => {
                let len = returned.parse()?;
                let source = arguments.descriptor(0)?;
                let from_offset = self.advance(&source, len).context("no place")?;
                let offset = self.advance(&arguments.descriptor(2)?, len);
                Call::Copy {
                    from: source.1,
                    from_offset,
                    path,
                    offset: offset.context("no place")?,
                    len,
                }
            }
            _ => bail!("{name} is not understood"),
        }))
    }

    /// Where a descriptor stands, before it goes on by `len`.
    fn advance(&mut self, of: &(String, PathBuf), len: u64) -> Option<u64> {
        let key = (of.1.clone(), of.0.clone());
        let place = self.places.entry(key).or_insert(Some(0)).as_mut()?;
        *place += len;
        Some(*place - len)
    }
}

/// Arguments as strace shows them. All text is in hexadecimal, so that a comma always separates.
struct Arguments<'a>(Vec<&'a str>);

impl Arguments<'_> {
    fn get(&self, index: usize) -> anyhow::Result<&str> {
        self.0.get(index).copied().context("an argument is missing")
    }

    fn number(&self, index: usize) -> anyhow::Result<u64> {
        Ok(self.get(index)?.parse()?)
    }

    fn data(&self, index: usize) -> anyhow::Result<Vec<u8>> {
        let quoted = self.get(index)?;
        let quoted = quoted
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        unhex(quoted.context("data was cut")?)
    }

    fn path(&self, index: usize) -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(String::from_utf8(self.data(index)?)?))
    }

    /// A path relative to the descriptor before it.
    fn path_at(&self, index: usize) -> anyhow::Result<PathBuf> {
        let path = self.path(index + 1)?;
        if path.is_absolute() {
            return Ok(path);
        }
        Ok(self.descriptor(index)?.1.join(path))
    }

    /// The file or directory a call changes.
    fn subject(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(match name {
            "open" | "creat" | "mkdir" | "rename" | "unlink" | "rmdir" | "truncate" | "link"
            | "symlink" => self.path(0)?,
            "openat" | "mkdirat" | "renameat" | "renameat2" | "unlinkat" | "linkat" => {
                self.path_at(0)?
            }
            "symlinkat" => self.path_at(1)?,
            "copy_file_range" => self.descriptor(2)?.1,
            _ => self.descriptor(0)?.1,
        })
    }

    fn descriptor(&self, index: usize) -> anyhow::Result<(String, PathBuf)> {
        descriptor(self.get(index)?)
    }
}

/// `7<\x2f\x74>`: its number and its path.
fn descriptor(shown: &str) -> anyhow::Result<(String, PathBuf)> {
    let Some((number, path)) = shown.split_once('<') else {
        return Ok((shown.to_owned(), PathBuf::new()));
    };
    let path = path.split('>').next().unwrap_or_default();
    // A pipe or a socket is shown by its kind, not in hexadecimal.
    let path = unhex(path).unwrap_or_default();
    Ok((number.to_owned(), PathBuf::from(String::from_utf8(path)?)))
}

fn unhex(escaped: &str) -> anyhow::Result<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => bail!("not a hexadecimal digit"),
    };
    let chunks = escaped.as_bytes().chunks(4).map(|chunk| match chunk {
        [b'\\', b'x', high, low] => Ok(digit(*high)? << 4 | digit(*low)?),
        _ => bail!("not in hexadecimal"),
    });
    chunks.collect()
}
