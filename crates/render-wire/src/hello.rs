//! What a worker says of itself, once, when its jail is locked.

use alloc::string::String;
use alloc::vec::Vec;

use framehook_media::Codec;

use crate::WireError;
use crate::bytes::{Reader, Writer};
use crate::job::{codec_from_u8, codec_to_u8};

/// More decoders than [`Codec`] has would be a mistake; this leaves room for those to come.
const DECODERS_MAX: usize = 16;

/// A worker is ready. The wire version stands in the message's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub pid: u32,
    /// What this worker's build can decode.
    pub decoders: Vec<Codec>,
    /// Name and version of the decoding library, for `doctor`.
    pub library: String,
    pub jail: JailReport,
}

/// How far the worker could lock itself in. The last four are results of trying, not of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JailReport {
    /// The jail was switched off by flag: everything else here may be false.
    pub disabled: bool,
    pub no_new_privs: bool,
    /// The seccomp filter is in force.
    pub seccomp: bool,
    pub landlock: Landlock,
    /// User the worker runs as; 65534 when the server is root.
    pub uid: u32,
    /// Limit of the address space, in bytes.
    pub memory_bytes_max: u64,
    /// Making a socket was refused.
    pub socket_refused: bool,
    /// Opening a file was refused.
    pub open_refused: bool,
    /// Running a program was refused.
    pub exec_refused: bool,
    /// Making memory executable was refused.
    pub executable_memory_refused: bool,
}

/// What of Landlock the kernel offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// The kernel has none, or it is switched off.
    Absent,
    /// In force without a single path or port; `abi` says how many kinds of access this kernel can refuse.
    Enforced { abi: u8 },
}

impl JailReport {
    /// Whether this worker may be given a stranger's bytes. Landlock is a second wall where the kernel has it; the first,
    /// seccomp, is required.
    pub fn is_locked(&self) -> bool {
        self.no_new_privs
            && self.seccomp
            && self.socket_refused
            && self.open_refused
            && self.exec_refused
            && self.executable_memory_refused
    }
}

impl Hello {
    pub(crate) fn write(&self, to: &mut Writer) {
        to.u32(self.pid);
        let decoders = &self.decoders[..self.decoders.len().min(DECODERS_MAX)];
        to.u8(decoders.len() as u8);
        for codec in decoders {
            to.u8(codec_to_u8(*codec));
        }
        to.text(&self.library);
        self.jail.write(to);
    }

    pub(crate) fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let pid = from.u32()?;
        let count = usize::from(from.u8()?);
        if count > DECODERS_MAX {
            return Err(WireError::Value("decoder count"));
        }
        let mut decoders = Vec::with_capacity(count);
        for _ in 0..count {
            decoders.push(codec_from_u8(from.u8()?)?);
        }
        Ok(Self { pid, decoders, library: from.text()?, jail: JailReport::parse(from)? })
    }
}

impl JailReport {
    fn write(&self, to: &mut Writer) {
        to.bool(self.disabled);
        to.bool(self.no_new_privs);
        to.bool(self.seccomp);
        to.u8(match self.landlock {
            Landlock::Absent => 0,
            Landlock::Enforced { abi } => abi,
        });
        to.u32(self.uid);
        to.u64(self.memory_bytes_max);
        to.bool(self.socket_refused);
        to.bool(self.open_refused);
        to.bool(self.exec_refused);
        to.bool(self.executable_memory_refused);
    }

    fn parse(from: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            disabled: from.bool()?,
            no_new_privs: from.bool()?,
            seccomp: from.bool()?,
            landlock: match from.u8()? {
                0 => Landlock::Absent,
                abi => Landlock::Enforced { abi },
            },
            uid: from.u32()?,
            memory_bytes_max: from.u64()?,
            socket_refused: from.bool()?,
            open_refused: from.bool()?,
            exec_refused: from.bool()?,
            executable_memory_refused: from.bool()?,
        })
    }
}
