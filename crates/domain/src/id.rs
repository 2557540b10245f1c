//! One type per noun that has an id. Ids that other systems see are UUIDv7 or small integers, as CSS has them.

use core::fmt;

use uuid::{Builder, Uuid};

use crate::time::UnixMs;

/// A UUID version 7 (RFC 9562, 5.7): the wall clock in front, so that ids sort by age in an index; `random` fills the
/// rest.
pub fn uuid_v7(at: UnixMs, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(at.0).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The time that [`uuid_v7`] has put into an id; `None`: the id is of another version.
pub fn time_of(id: Uuid) -> Option<UnixMs> {
    (id.get_version_num() == 7).then(|| UnixMs((id.as_u128() >> 80) as i64))
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    )+};
}

uuid_ids! {
    /// One picture, from pick to callback: the id that follows it through logs and the database.
    SnapshotId,
    /// One fact worth telling (a picture stored, a push begun or ended).
    EventId,
    /// An event owed to one endpoint. It is the `webhook-id` of every attempt, over retries, restarts and replays.
    DeliveryId,
    /// A screenshot task. The callbacks of its pictures carry it.
    TaskId,
}

macro_rules! integer_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

integer_ids! {
    /// A snapshot or callback template; positive, 0 is the built-in one that no list shows.
    TemplateId,
    /// A snapshot or callback rule; positive, 0 is the built-in one that no list shows. It must stay the same over a
    /// reload as long as the rule's domain, app and stream do: picks of live pushes are bound to it.
    RuleId,
}

/// The `sequence` of one push: unique for ever, the same in its begin and end notices, 63 bits, 19 decimal digits
/// today. On the wire it is a decimal *string*, because JSON numbers lose integers above 2^53 in many languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushSequence(u64);

/// Random bits below the clock. 42 bits of milliseconds last until the year 2109, 21 random bits keep even a thousand
/// pushes of one millisecond apart with a chance of 3 in 4 (and the database's unique index catches the rest).
const SEQUENCE_RANDOM_BITS: u32 = 21;

impl PushSequence {
    pub fn new(began: UnixMs, random: u32) -> Self {
        let millis = u64::try_from(began.0).unwrap_or(0) & ((1 << 42) - 1);
        Self(millis << SEQUENCE_RANDOM_BITS | u64::from(random) & ((1 << SEQUENCE_RANDOM_BITS) - 1))
    }

    /// From the database. `None` for what we never wrote: a negative number.
    pub fn from_i64(stored: i64) -> Option<Self> {
        u64::try_from(stored).ok().map(Self)
    }

    /// For the database, whose integers are signed.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("a push sequence has 63 bits")
    }

    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PushSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn uuid_v7_carries_version_variant_and_clock() {
        // RFC 9562, appendix A.6: the example's clock, its random bits and its text.
        let id = uuid_v7(UnixMs(0x017F_22E2_79B0), [0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f]);
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }

    #[test]
    fn uuid_v7_sorts_by_time() {
        assert!(uuid_v7(UnixMs(1), [0xff; 10]) < uuid_v7(UnixMs(2), [0; 10]));
    }

    #[test]
    fn ids_come_back_from_their_text() {
        let id = DeliveryId(uuid_v7(UnixMs(1_735_689_600_000), [7; 10]));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn sequence_is_a_63_bit_number_of_19_digits() {
        let sequence = PushSequence::new(UnixMs(1_735_689_600_000), u32::MAX);
        assert_eq!(sequence.to_string(), "3640004916021297151");
        assert_eq!(sequence.to_string().len(), 19);
        assert_eq!(PushSequence::from_i64(sequence.as_i64()), Some(sequence));
        assert!(PushSequence::new(UnixMs(i64::MAX), u32::MAX).as_u64() < 1 << 63);
    }

    #[test]
    fn sequences_grow_with_time_and_differ_within_a_millisecond() {
        let at = UnixMs(1_735_689_600_000);
        assert!(PushSequence::new(at, u32::MAX) < PushSequence::new(UnixMs(at.0 + 1), 0));
        assert_ne!(PushSequence::new(at, 1), PushSequence::new(at, 2));
    }
}
