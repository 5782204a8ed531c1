//! A disk that keeps what it was made to keep, and of the rest whatever it likes.
//!
//! At a crash everything a finished fsync or fdatasync covered is there. Of what came after, any subset
//! may be: single writes, single sectors of a write, a file's length without its data, a name without
//! its file's content and the other way round. Two writes to one place never come out in the wrong
//! order, because a page cache holds only the later; two writes to different places may.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::mark::Mark;
use super::trace::{Call, Event};

/// What a disk writes as a whole.
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;
const ROOT: usize = 0;

/// Everything that happened in a directory, ready to be cut off anywhere.
#[derive(Debug)]
pub struct Journal {
    root: PathBuf,
    nodes: Vec<Node>,
    /// Names as the running system sees them.
    live: Vec<BTreeMap<String, usize>>,
    /// What it reads in files.
    content: Vec<Node>,
    steps: Vec<Step>,
}

/// A file or a directory, as it was before the first step.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>),
    Directory(BTreeMap<String, usize>),
}

#[derive(Debug)]
struct Step {
    start: usize,
    end: usize,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Change(usize, Change),
    Sync(usize),
    Mark(Mark),
}

/// One change of one node. A rename within a directory is one change: no disk shows half of it.
#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Length(u64),
    Names(Vec<(String, Option<usize>)>),
}

/// What becomes of changes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// None is there: the disk did only what it was made to.
    Nothing,
    /// All are: the crash of a process.
    Everything,
    /// Each with even odds.
    Some,
    /// Writes in sectors, each with even odds; files have their full length.
    Sectors,
    /// The same in pages.
    Pages,
    /// All names, no data.
    Names,
    /// All data, no names.
    Data,
    /// All but a few.
    Most,
}

const FATES: [Fate; 8] = [
    Fate::Nothing,
    Fate::Everything,
    Fate::Some,
    Fate::Sectors,
    Fate::Pages,
    Fate::Names,
    Fate::Data,
    Fate::Most,
];

impl Journal {
    /// A run over the directory `root`, which was as `before` at its start.
    pub fn new(root: &Path, before: Option<&Path>, events: Vec<Event>) -> anyhow::Result<Self> {
        let mut journal = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            live: Vec::new(),
            content: Vec::new(),
            steps: Vec::new(),
        };
        journal.load(before)?;
        for event in events {
            let (start, end) = (event.start, event.end);
            let actions = journal.actions(event.call)?;
            let steps = actions.into_iter();
            journal
                .steps
                .extend(steps.map(|action| Step { start, end, action }));
        }
        Ok(journal)
    }

    fn load(&mut self, from: Option<&Path>) -> anyhow::Result<usize> {
        let id = self.add(Node::Directory(BTreeMap::new()));
        let Some(from) = from else { return Ok(id) };
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let node = if entry.file_type()?.is_dir() {
                self.load(Some(&entry.path()))?
            } else {
                let content = fs::read(entry.path())?;
                self.add(Node::File(content))
            };
            let name = entry.file_name();
            names.insert(name.to_str().context("a name")?.to_owned(), node);
        }
        self.live[id].clone_from(&names);
        self.nodes[id] = Node::Directory(names);
        Ok(id)
    }

    fn add(&mut self, node: Node) -> usize {
        self.content.push(node.clone());
        self.nodes.push(node);
        self.live.push(BTreeMap::new());
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> anyhow::Result<Option<usize>> {
        let mut node = ROOT;
        for name in path.strip_prefix(&self.root)? {
            let name = name.to_str().context("a name that is text")?;
            match self.live[node].get(name) {
                Some(next) => node = *next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    fn parent(&self, path: &Path) -> anyhow::Result<(usize, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let parent = self.find(path.parent().context("no parent")?)?;
        let parent = parent.with_context(|| format!("no directory for {}", path.display()))?;
        Ok((parent, name.context("no name")?.to_owned()))
    }

    fn name(&mut self, path: &Path, node: usize) -> anyhow::Result<Action> {
        let (parent, name) = self.parent(path)?;
        self.live[parent].insert(name.clone(), node);
        Ok(Action::Change(
            parent,
            Change::Names(vec![(name, Some(node))]),
        ))
    }

    fn actions(&mut self, call: Call) -> anyhow::Result<Vec<Action>> {
        Ok(match call {
            Call::Mark(mark) => vec![Action::Mark(mark)],
            Call::Mkdir { path } if path == self.root => Vec::new(),
            Call::Mkdir { path } => {
                let node = self.add(Node::Directory(BTreeMap::new()));
                vec![self.name(&path, node)?]
            }
            Call::Create { path, truncate } => match self.find(&path)? {
                Some(_) if truncate => self.change(&path, Change::Length(0))?,
                Some(_) => Vec::new(),
                None => {
                    let node = self.add(Node::File(Vec::new()));
                    vec![self.name(&path, node)?]
                }
            },
            // What was removed while it is open can't be found again after a crash.
            Call::Write { path, offset, data } => {
                let offset = match offset {
                    Some(offset) => offset,
                    None => self.read(&path)?.len() as u64,
                };
                self.change(&path, Change::Write { offset, data })?
            }
            Call::Copy {
                from,
                from_offset,
                path,
                offset,
                len,
            } => {
                let start = usize::try_from(from_offset)?;
                let end = start + usize::try_from(len)?;
                let data = self.read(&from)?.get(start..end);
                let data = data.context("a copy of what is not there")?.to_vec();
                self.change(&path, Change::Write { offset, data })?
            }
            Call::Truncate { path, len } => self.change(&path, Change::Length(len))?,
            Call::Sync { path } => self.find(&path)?.map(Action::Sync).into_iter().collect(),
            Call::Remove { path } => {
                let (parent, name) = self.parent(&path)?;
                self.live[parent].remove(&name);
                vec![Action::Change(parent, Change::Names(vec![(name, None)]))]
            }
            Call::Rename { from, to } => {
                let (parent, old) = self.parent(&from)?;
                let (target, new) = self.parent(&to)?;
                ensure!(parent == target, "a rename to another directory");
                let node = self.live[parent]
                    .remove(&old)
                    .context("nothing to rename")?;
                self.live[parent].insert(new.clone(), node);
                let names = vec![(old, None), (new, Some(node))];
                vec![Action::Change(parent, Change::Names(names))]
            }
        })
    }

    fn read(&self, path: &Path) -> anyhow::Result<&[u8]> {
        match self.find(path)?.map(|node| &self.content[node]) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Directory(_)) => bail!("{} is a directory", path.display()),
            None => Ok(&[]),
        }
    }

    fn change(&mut self, path: &Path, change: Change) -> anyhow::Result<Vec<Action>> {
        let Some(node) = self.find(path)? else {
            return Ok(Vec::new());
        };
        apply(&mut self.content[node], &change, |_| true)?;
        Ok(vec![Action::Change(node, change)])
    }

    /// Lines of the trace: a crash may come before any of them, or at the end.
    pub fn end(&self) -> usize {
        self.steps.last().map_or(0, |step| step.end + 1)
    }

    /// Every mark and its line.
    pub fn marks(&self) -> impl Iterator<Item = (usize, &Mark)> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Mark(mark) => Some((step.start, mark)),
            Action::Change(..) | Action::Sync(_) => None,
        })
    }

    /// Lines at which a crash is most telling: right after something was marked.
    pub fn promises(&self) -> Vec<usize> {
        self.marks().map(|(line, _)| line + 1).collect()
    }

    /// Makes `target` the directory as the disk has it after a crash before line `at`. Answers what
    /// became of the changes that were not synced, and how many those were.
    pub fn crash(&self, at: usize, seed: u64, target: &Path) -> anyhow::Result<(String, usize)> {
        let mut random = StdRng::seed_from_u64(seed);
        let fate = FATES[random.random_range(0..FATES.len())];
        let mut synced: HashMap<usize, usize> = HashMap::new();
        for step in self.steps.iter().filter(|step| step.end < at) {
            if let Action::Sync(node) = step.action {
                let before = synced.entry(node).or_default();
                *before = step.start.max(*before);
            }
        }
        let mut nodes = self.nodes.clone();
        let mut unsynced = 0;
        for step in self.steps.iter().filter(|step| step.start < at) {
            let Action::Change(node, change) = &step.action else {
                continue;
            };
            if step.end < synced.get(node).copied().unwrap_or(0) {
                apply(&mut nodes[*node], change, |_| true)?;
            } else {
                unsynced += 1;
                suffer(&mut nodes[*node], change, fate, &mut random)?;
            }
        }
        write(&nodes, ROOT, target)?;
        Ok((format!("{fate:?}"), unsynced))
    }

    /// For who looks at a failure: the marks before line `at`, and every change and sync since `since`.
    pub fn describe(&self, since: usize, at: usize) -> String {
        let mut text = String::new();
        for step in self.steps.iter().filter(|step| step.start < at) {
            let (start, end) = (step.start, step.end);
            let line = match &step.action {
                Action::Mark(mark) => format!("{start} {mark:?}"),
                _ if start < since => continue,
                Action::Sync(node) => format!("{start}-{end} sync {node}"),
                Action::Change(node, Change::Write { offset, data }) => {
                    let len = data.len();
                    format!("{start}-{end} write {node} at {offset}, {len} bytes")
                }
                Action::Change(node, change) => format!("{start}-{end} {change:?} of {node}"),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// The calls from line `from` to line `to`, for who checks their order.
    pub fn calls_between(&self, from: usize, to: usize) -> impl Iterator<Item = Seen> {
        let steps = self.steps.iter();
        let steps = steps.filter(move |step| step.start >= from && step.end <= to);
        steps.filter_map(|step| match &step.action {
            Action::Change(node, Change::Write { .. }) => Some(Seen::Write(*node)),
            Action::Change(node, _) => Some(Seen::Other(*node)),
            Action::Sync(node) => Some(Seen::Sync(*node)),
            Action::Mark(_) => None,
        })
    }
}

/// A call on a file or directory, told apart by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Write(usize),
    Sync(usize),
    Other(usize),
}

/// Applies of an unsynced change what `fate` leaves of it.
fn suffer(node: &mut Node, change: &Change, fate: Fate, random: &mut StdRng) -> anyhow::Result<()> {
    let is_name = matches!(change, Change::Names(_));
    let whole = is_name || matches!(fate, Fate::Some);
    let unit = if matches!(fate, Fate::Pages) {
        PAGE
    } else {
        SECTOR
    };
    match fate {
        Fate::Nothing => Ok(()),
        Fate::Some | Fate::Sectors | Fate::Pages if whole && random.random() => Ok(()),
        Fate::Most if random.random_ratio(1, 8) => Ok(()),
        Fate::Data if is_name => Ok(()),
        Fate::Names if !is_name => apply(node, change, |_| false),
        Fate::Everything | Fate::Some | Fate::Most | Fate::Data | Fate::Names => {
            apply(node, change, |_| true)
        }
        Fate::Sectors | Fate::Pages => {
            let mut kept = HashMap::new();
            apply(node, change, |offset| {
                *kept.entry(offset / unit).or_insert_with(|| random.random())
            })
        }
    }
}

/// Applies a change; of a write only the sectors that `keep` says, by where they begin.
fn apply(
    node: &mut Node,
    change: &Change,
    mut keep: impl FnMut(u64) -> bool,
) -> anyhow::Result<()> {
    match (node, change) {
        (Node::Directory(names), Change::Names(changes)) => {
            for (name, node) in changes {
                match node {
                    Some(node) => names.insert(name.clone(), *node),
                    None => names.remove(name),
                };
            }
        }
        (Node::File(content), Change::Length(len)) => content.resize(usize::try_from(*len)?, 0),
        (Node::File(content), Change::Write { offset, data }) => {
            let start = usize::try_from(*offset)?;
            if content.len() < start + data.len() {
                content.resize(start + data.len(), 0);
            }
            let mut at = *offset;
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                let room = usize::try_from(SECTOR - at % SECTOR)?.min(rest.len());
                let (sector, later) = rest.split_at(room);
                if keep(at - at % SECTOR) {
                    let from = usize::try_from(at)?;
                    content[from..from + room].copy_from_slice(sector);
                }
                at += room as u64;
                rest = later;
            }
        }
        (node, change) => bail!("{change:?} of {node:?}"),
    }
    Ok(())
}

fn write(nodes: &[Node], id: usize, target: &Path) -> anyhow::Result<()> {
    match &nodes[id] {
        Node::File(content) => fs::write(target, content)?,
        Node::Directory(names) => {
            fs::create_dir_all(target)?;
            for (name, node) in names {
                write(nodes, *node, &target.join(name))?;
            }
        }
    }
    Ok(())
}
