//! What the recorder writes down: one change after another, as `recorder.c` makes them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes};

/// A file's or directory's number while it exists. A new one may bear the number of one that is gone.
pub type Inode = u64;

/// One change below the root, done at the place that it has among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A program began to be recorded. `root` is the directory below which.
    Began {
        root: Inode,
    },
    /// An empty file with a name in a directory.
    MadeFile {
        file: Inode,
        dir: Inode,
        name: OsString,
    },
    /// An empty directory with a name in another.
    MadeDir {
        made: Inode,
        dir: Inode,
        name: OsString,
    },
    Wrote {
        file: Inode,
        offset: u64,
        bytes: Bytes,
    },
    /// A file became shorter or longer.
    SetLength {
        file: Inode,
        length: u64,
    },
    /// A program asked for what a file holds, or for the names in a directory, to be made durable.
    Synced {
        inode: Inode,
    },
    /// One name more for a file.
    Linked {
        file: Inode,
        dir: Inode,
        name: OsString,
    },
    /// A name is gone, of a file or of an empty directory.
    Removed {
        dir: Inode,
        name: OsString,
    },
    /// A file has another name, and whatever had it has not.
    Renamed {
        file: Inode,
        dir: Inode,
        name: OsString,
        new_dir: Inode,
        new_name: OsString,
    },
}

/// Kind, two numbers and a length.
const HEAD_BYTES: usize = 1 + 8 + 8 + 4;

/// Reads a whole record.
///
/// # Errors
/// When it is not one that the recorder wrote, or breaks off.
pub fn parse(record: Vec<u8>) -> Result<Vec<Change>> {
    let mut record = Bytes::from(record);
    let mut changes = Vec::new();
    while record.has_remaining() {
        let change = parse_one(&mut record).with_context(|| format!("change {} of the record", changes.len()))?;
        changes.push(change);
    }
    Ok(changes)
}

fn parse_one(record: &mut Bytes) -> Result<Change> {
    ensure!(record.remaining() >= HEAD_BYTES, "it breaks off");
    let (kind, file, place, length) = (record.get_u8(), record.get_u64_ne(), record.get_u64_ne(), record.get_u32_ne());
    ensure!(record.remaining() >= length as usize, "it breaks off");
    let mut bytes = record.split_to(length as usize);
    let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Ok(match kind {
        b'O' => Change::Began { root: file },
        b'F' => Change::MadeFile { file, dir: place, name: name(&bytes) },
        b'D' => Change::MadeDir { made: file, dir: place, name: name(&bytes) },
        b'W' => Change::Wrote { file, offset: place, bytes },
        b'T' => Change::SetLength { file, length: place },
        b'S' => Change::Synced { inode: file },
        b'L' => Change::Linked { file, dir: place, name: name(&bytes) },
        b'U' => Change::Removed { dir: place, name: name(&bytes) },
        b'R' => {
            ensure!(bytes.remaining() >= 8, "a file is renamed into a directory");
            let new_dir = bytes.get_u64_ne();
            let names: Vec<OsString> = bytes.split(|byte| *byte == 0).map(name).collect();
            let [old, new] = &names[..] else { bail!("a file is renamed from one name to one other") };
            Change::Renamed { file, dir: place, name: old.clone(), new_dir, new_name: new.clone() }
        }
        other => bail!("{other} is no kind of change"),
    })
}
