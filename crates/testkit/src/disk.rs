//! A disk whose power fails.
//!
//! A program is run under a [`Recorder`], which writes down each change that it makes to files, and each sync. The
//! [`Disk`] is built from such a record up to any place in it, and knows what was synced by then. What was not is up to
//! chance: [`Disk::after_power_cut`] gives a state that a disk may be found in, of which there are many, chosen by dice.
//!
//! What it takes for granted is what SQLite does too, and no more: a sync of a file makes its bytes and length durable, a
//! sync of a directory the names in it; a rename happens or does not; a write harms no byte beside it. In particular
//! the sync of a new file does not make its name durable, and what is not synced may reach the disk in any order, in part, or
//! never.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;

use crate::dice::Dice;
use crate::preload::{self, Preload};
pub use record::{Change, Inode, parse};

/// Runs programs whose changes to files are written down.
#[derive(Debug)]
pub struct Recorder {
    preload: Preload,
}

impl Recorder {
    /// # Errors
    /// When there is no C compiler.
    pub fn build() -> Result<Self> {
        Ok(Self { preload: Preload::build("recorder", include_str!("disk/recorder.c"))? })
    }

    /// What a program must be started with for its changes below `root`, an absolute path without links in it, to be written
    /// to `record`. It is killed right behind its change number `ends_after`, if it comes so far.
    pub fn environment(&self, root: &Path, record: &Path, ends_after: Option<u64>) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            (preload::VARIABLE, self.preload.library()),
            ("DISK_RECORD_ROOT", root.display().to_string()),
            ("DISK_RECORD", record.display().to_string()),
        ];
        variables.extend(ends_after.map(|number| ("DISK_RECORD_ENDS_AFTER", number.to_string())));
        variables
    }
}

/// A directory with everything below it: as programs see it, and as much of it as is durable.
#[derive(Debug, Default)]
pub struct Disk {
    /// Each file and directory that ever was. The first is the root.
    nodes: Vec<Node>,
    /// Those that are.
    by_inode: HashMap<Inode, usize>,
}

#[derive(Debug)]
struct Node {
    /// The name that it was given last.
    name: OsString,
    contents: Contents,
}

/// What is durable, and what was changed since.
#[derive(Debug)]
enum Contents {
    File { durable: Vec<u8>, pending: Vec<FileChange> },
    Dir { durable: Names, pending: Vec<NameChange> },
}

type Names = BTreeMap<OsString, usize>;

#[derive(Clone, Debug)]
enum FileChange {
    Write { offset: usize, bytes: Bytes },
    SetLength(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(OsString, usize),
    Removed(OsString),
    /// From one name to another of the same directory.
    Moved(OsString, OsString, usize),
}

/// What becomes of changes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// All of them are lost.
    All,
    /// None of them is, as when only the program is killed.
    None,
    /// Each is lost or not.
    Whole,
    /// The same, and of a write each part of so many bytes, the disk's sector, by itself.
    Torn { sector: usize },
    /// None up to some change of each file and directory, and all after it; that one itself is torn.
    Tail { sector: usize },
}

impl Loss {
    fn draw(dice: &mut Dice) -> Self {
        let sector = if dice.within(0..2) == 0 { 512 } else { 4096 };
        match dice.within(0..8) {
            0 => Self::All,
            1 => Self::None,
            2 | 3 => Self::Whole,
            4 | 5 => Self::Torn { sector },
            _ => Self::Tail { sector },
        }
    }
}

/// A state in which a disk may be found: what is left of each file and directory.
#[derive(Debug)]
pub struct Found {
    nodes: Vec<FoundNode>,
}

#[derive(Debug)]
enum FoundNode {
    File(Vec<u8>),
    Dir(Names),
}

impl Disk {
    /// What lies in a directory, all of it durable.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read(root: &Path) -> Result<Self> {
        let mut disk = Self::default();
        disk.read_node(root, OsStr::new(""))?;
        Ok(disk)
    }

    fn read_node(&mut self, path: &Path, name: &OsStr) -> Result<usize> {
        let metadata = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
        if let Some(&known) = self.by_inode.get(&metadata.ino()) {
            return Ok(known);
        }
        if metadata.is_file() {
            let durable = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            return Ok(self.add(metadata.ino(), name, Contents::File { durable, pending: Vec::new() }));
        }
        let this = self.add(metadata.ino(), name, Contents::EMPTY_DIR);
        let mut names = Names::new();
        for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
            let entry = entry?;
            names.insert(entry.file_name(), self.read_node(&entry.path(), &entry.file_name())?);
        }
        self.nodes[this].contents = Contents::Dir { durable: names, pending: Vec::new() };
        Ok(this)
    }

    /// Follows a program by one change.
    ///
    /// # Errors
    /// When it is of something that no earlier change made.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Began { root } => match self.by_inode.get(root) {
                None if self.nodes.is_empty() => {
                    self.add(*root, OsStr::new(""), Contents::EMPTY_DIR);
                }
                // The next program in the same directory.
                Some(0) => {}
                _ => bail!("the program runs in another directory"),
            },
            Change::MadeFile { file, dir, name } => {
                let made = self.add(*file, name, Contents::EMPTY_FILE);
                self.names(*dir)?.push(NameChange::Set(name.clone(), made));
            }
            Change::MadeDir { made, dir, name } => {
                let made = self.add(*made, name, Contents::EMPTY_DIR);
                self.names(*dir)?.push(NameChange::Set(name.clone(), made));
            }
            Change::Wrote { file, offset, bytes } => {
                let write = FileChange::Write { offset: usize::try_from(*offset)?, bytes: bytes.clone() };
                self.contents(*file)?.push(write);
            }
            Change::SetLength { file, length } => {
                let length = usize::try_from(*length)?;
                self.contents(*file)?.push(FileChange::SetLength(length));
            }
            Change::Synced { inode } => {
                let node = self.index(*inode)?;
                self.nodes[node].contents.sync();
            }
            Change::Linked { file, dir, name } => {
                let file = self.named(*file, name)?;
                self.names(*dir)?.push(NameChange::Set(name.clone(), file));
            }
            Change::Removed { dir, name } => self.names(*dir)?.push(NameChange::Removed(name.clone())),
            Change::Renamed { file, dir, name, new_dir, new_name } => {
                let file = self.named(*file, new_name)?;
                if dir == new_dir {
                    self.names(*dir)?.push(NameChange::Moved(name.clone(), new_name.clone(), file));
                } else {
                    // More than a disk would do: one of the two names may be lost, or both.
                    self.names(*new_dir)?.push(NameChange::Set(new_name.clone(), file));
                    self.names(*dir)?.push(NameChange::Removed(name.clone()));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, inode: Inode, name: &OsStr, contents: Contents) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node { name: name.to_owned(), contents });
        // Whatever bore the number before is gone: a number is given again when its file is.
        self.by_inode.insert(inode, index);
        index
    }

    fn index(&self, inode: Inode) -> Result<usize> {
        self.by_inode.get(&inode).copied().with_context(|| format!("nothing has the number {inode}"))
    }

    fn named(&mut self, inode: Inode, name: &OsStr) -> Result<usize> {
        let index = self.index(inode)?;
        self.nodes[index].name = name.to_owned();
        Ok(index)
    }

    fn names(&mut self, dir: Inode) -> Result<&mut Vec<NameChange>> {
        let index = self.index(dir)?;
        match &mut self.nodes[index].contents {
            Contents::Dir { pending, .. } => Ok(pending),
            Contents::File { .. } => bail!("{dir} is no directory"),
        }
    }

    fn contents(&mut self, file: Inode) -> Result<&mut Vec<FileChange>> {
        let index = self.index(file)?;
        match &mut self.nodes[index].contents {
            Contents::File { pending, .. } => Ok(pending),
            Contents::Dir { .. } => bail!("{file} is no file"),
        }
    }

    /// The last part of the name that a file or directory was given last; of the root it is empty.
    pub fn name_of(&self, inode: Inode) -> Option<&OsStr> {
        let index = self.index(inode).ok()?;
        Some(&self.nodes[index].name)
    }

    /// What programs see, as it is found after the program alone has died.
    pub fn as_seen(&self) -> Found {
        self.found(Loss::None, &mut Dice::new(0))
    }

    /// A state that the disk may be found in when its power fails now.
    pub fn after_power_cut(&self, dice: &mut Dice) -> Found {
        let loss = Loss::draw(dice);
        self.found(loss, dice)
    }

    fn found(&self, loss: Loss, dice: &mut Dice) -> Found {
        Found { nodes: self.nodes.iter().map(|node| node.contents.lose(loss, dice)).collect() }
    }
}

impl Contents {
    const EMPTY_FILE: Self = Self::File { durable: Vec::new(), pending: Vec::new() };
    const EMPTY_DIR: Self = Self::Dir { durable: Names::new(), pending: Vec::new() };

    fn sync(&mut self) {
        match self {
            Self::File { durable, pending } => {
                for change in pending.drain(..) {
                    change.apply(durable);
                }
            }
            Self::Dir { durable, pending } => {
                for change in pending.drain(..) {
                    change.apply(durable);
                }
            }
        }
    }

    fn lose(&self, loss: Loss, dice: &mut Dice) -> FoundNode {
        match self {
            Self::File { durable, pending } => {
                let mut bytes = durable.clone();
                // What a file system shows of a part that was never written: nothing, or what lay there before.
                let filling = if dice.within(0..2) == 0 { 0 } else { dice.draw() as u8 };
                let last = dice.within(0..pending.len() as u64 + 1) as usize;
                for (number, change) in pending.iter().enumerate() {
                    let sector = match loss {
                        Loss::All => break,
                        Loss::Tail { .. } if number > last => break,
                        Loss::Tail { sector } if number == last => sector,
                        Loss::None | Loss::Tail { .. } => {
                            change.apply(&mut bytes);
                            continue;
                        }
                        Loss::Whole if dice.within(0..2) == 0 => continue,
                        Loss::Whole => {
                            change.apply(&mut bytes);
                            continue;
                        }
                        Loss::Torn { sector } => sector,
                    };
                    change.apply_torn(&mut bytes, sector, filling, dice);
                }
                FoundNode::File(bytes)
            }
            Self::Dir { durable, pending } => {
                let mut names = durable.clone();
                let last = dice.within(0..pending.len() as u64 + 1) as usize;
                for (number, change) in pending.iter().enumerate() {
                    let is_lost = match loss {
                        Loss::All => true,
                        Loss::None => false,
                        Loss::Whole | Loss::Torn { .. } => dice.within(0..2) == 0,
                        Loss::Tail { .. } => number >= last,
                    };
                    if !is_lost {
                        change.apply(&mut names);
                    }
                }
                FoundNode::Dir(names)
            }
        }
    }
}

impl FileChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => overwrite(bytes, *offset, written, 0),
            Self::SetLength(length) => bytes.resize(*length, 0),
        }
    }

    /// Applies some of its sectors.
    fn apply_torn(&self, bytes: &mut Vec<u8>, sector: usize, filling: u8, dice: &mut Dice) {
        match self {
            Self::Write { offset, bytes: written } => {
                let mut from = 0;
                while from < written.len() {
                    let to = written.len().min(from + sector - (offset + from) % sector);
                    if dice.within(0..2) == 0 {
                        overwrite(bytes, offset + from, &written[from..to], filling);
                    }
                    from = to;
                }
            }
            Self::SetLength(_) if dice.within(0..2) == 0 => {}
            Self::SetLength(_) => self.apply(bytes),
        }
    }
}

/// Writes at a place, which may be behind the end: what lies between is filled.
fn overwrite(bytes: &mut Vec<u8>, offset: usize, written: &[u8], filling: u8) {
    if bytes.len() < offset + written.len() {
        bytes.resize(offset, filling);
        bytes.extend_from_slice(written);
    } else {
        bytes[offset..offset + written.len()].copy_from_slice(written);
    }
}

impl NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Set(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Removed(name) => drop(names.remove(name)),
            Self::Moved(old, new, node) => {
                names.remove(old);
                names.insert(new.clone(), *node);
            }
        }
    }
}

impl Found {
    /// Makes it true in a directory, which must be empty.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write_to(&self, root: &Path) -> Result<()> {
        if !self.nodes.is_empty() {
            self.write_node(0, root, &mut HashMap::new()).with_context(|| format!("fill {}", root.display()))?;
        }
        Ok(())
    }

    fn write_node(&self, node: usize, path: &Path, written: &mut HashMap<usize, PathBuf>) -> Result<()> {
        match &self.nodes[node] {
            FoundNode::File(bytes) => match written.get(&node) {
                Some(first) => fs::hard_link(first, path)?,
                None => {
                    fs::write(path, bytes)?;
                    written.insert(node, path.to_owned());
                }
            },
            FoundNode::Dir(names) => {
                if node != 0 {
                    fs::create_dir(path)?;
                }
                for (name, child) in names {
                    self.write_node(*child, &path.join(name), written)?;
                }
            }
        }
        Ok(())
    }

    /// Every file and directory, by its path below the root; of directories, `None`.
    pub fn files(&self) -> BTreeMap<PathBuf, Option<&[u8]>> {
        let mut files = BTreeMap::new();
        if !self.nodes.is_empty() {
            self.list(0, Path::new(""), &mut files);
        }
        files
    }

    fn list<'a>(&'a self, node: usize, path: &Path, files: &mut BTreeMap<PathBuf, Option<&'a [u8]>>) {
        let FoundNode::Dir(names) = &self.nodes[node] else { return };
        for (name, child) in names {
            let path = path.join(name);
            match &self.nodes[*child] {
                FoundNode::File(bytes) => drop(files.insert(path, Some(bytes))),
                FoundNode::Dir(_) => {
                    self.list(*child, &path, files);
                    files.insert(path, None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
