//! Which objects a picture becomes.

/// Which objects are written of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Objects {
    /// An object of its own, as CSS does: it is announced, and stays.
    #[default]
    Sequence,
    /// Only the one that each newer picture overwrites. Nothing is announced, since what a callback named would be another
    /// picture by the time it is fetched.
    Latest,
    Both,
}

impl Objects {
    pub const ALL: [Self; 3] = [Self::Sequence, Self::Latest, Self::Both];

    /// The name in the configuration, the API and the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Latest => "latest",
            Self::Both => "both",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|objects| objects.name() == name)
    }

    pub const fn has_sequence(self) -> bool {
        matches!(self, Self::Sequence | Self::Both)
    }

    pub const fn has_latest(self) -> bool {
        matches!(self, Self::Latest | Self::Both)
    }
}
