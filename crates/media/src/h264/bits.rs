//! Bits of a NAL unit's payload, with emulation prevention removed on the way (7.3.1) and Exp-Golomb codes (9.1).

/// The payload ended before a value did, or a value was longer than any legal one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NAL unit ends inside a value")]
pub struct OutOfBits;

/// Reads bits from most to least significant. Headers are a few dozen bytes, so it favours plainness over speed.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    /// The byte that is being read, its next bit on top.
    current: u8,
    bits_left: u32,
    /// Consecutive zero bytes before `rest`; after two of them a byte 3 is not payload.
    zeros: u32,
}

impl<'a> BitReader<'a> {
    /// `payload` is the NAL unit without its header byte.
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, current: 0, bits_left: 0, zeros: 0 }
    }

    fn next_byte(&mut self) -> Result<u8, OutOfBits> {
        let (&first, rest) = self.rest.split_first().ok_or(OutOfBits)?;
        self.rest = rest;
        let mut byte = first;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            (byte, self.rest) = rest.split_first().map(|(&byte, rest)| (byte, rest)).ok_or(OutOfBits)?;
        }
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        Ok(byte)
    }

    /// The next `count` bits as a number; `count` is at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, OutOfBits> {
        debug_assert!(count <= 32);
        let mut value = 0_u64;
        let mut wanted = count;
        while wanted > 0 {
            if self.bits_left == 0 {
                self.current = self.next_byte()?;
                self.bits_left = 8;
            }
            let taken = wanted.min(self.bits_left);
            let on_top = u64::from(self.current) >> (8 - taken);
            value = value << taken | on_top;
            // Shifting out all eight bits would overflow a u8.
            self.current = self.current.checked_shl(taken).unwrap_or(0);
            self.bits_left -= taken;
            wanted -= taken;
        }
        Ok(value as u32)
    }

    pub(super) fn flag(&mut self) -> Result<bool, OutOfBits> {
        Ok(self.bits(1)? == 1)
    }

    /// Unsigned Exp-Golomb, `ue(v)`. Codes above 32 bits have no legal meaning anywhere.
    pub(super) fn ue(&mut self) -> Result<u32, OutOfBits> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros == 32 {
                return Err(OutOfBits);
            }
        }
        Ok((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// Signed Exp-Golomb, `se(v)`.
    pub(super) fn se(&mut self) -> Result<i32, OutOfBits> {
        let code = self.ue()?;
        let magnitude = code.div_ceil(2).cast_signed();
        Ok(if code % 2 == 1 { magnitude } else { -magnitude })
    }

    /// Passes over whole bytes of payload; only used where reading is byte-aligned.
    pub(super) fn skip_bytes(&mut self, count: u32) -> Result<(), OutOfBits> {
        for _ in 0..count {
            self.next_byte()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_bytes() {
        let mut bits = BitReader::new(b"\xa5\x5a\xff\x00\x01");
        assert_eq!(bits.bits(4), Ok(0xa));
        assert_eq!(bits.bits(8), Ok(0x55));
        assert_eq!(bits.bits(0), Ok(0));
        assert_eq!(bits.bits(28), Ok(0xaff_0001));
        assert_eq!(bits.bits(1), Err(OutOfBits));
    }

    #[test]
    fn removes_emulation_prevention() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"\0\0\x03\x01", b"\0\0\x01"),
            (b"\0\0\x03\0\0\x03\0\0\x01", b"\0\0\0\0\0\0\x01"),
            (b"\0\x03\0\x03", b"\0\x03\0\x03"),
            (b"\0\0\x03\x03\x03", b"\0\0\x03\x03"),
        ];
        for (coded, plain) in cases {
            let mut bits = BitReader::new(coded);
            for &byte in *plain {
                assert_eq!(bits.bits(8), Ok(byte.into()), "{coded:02x?}");
            }
            assert_eq!(bits.bits(1), Err(OutOfBits), "{coded:02x?}");
        }
        assert_eq!(BitReader::new(b"\0\0\x03").skip_bytes(3), Err(OutOfBits));
    }

    #[test]
    fn reads_exp_golomb_codes() {
        // Table 9-2: 1, 010, 011, 00100, then 00110 read as signed.
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0011, 0b0001_1100]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Ok(0), Ok(1), Ok(2), Ok(3)]);
        assert_eq!([bits.se(), bits.se()], [Ok(3), Ok(-3)]);
    }

    #[test]
    fn longest_codes_neither_overflow_nor_panic() {
        let longest = [&[0, 0, 0, 0b0000_0001][..], &[0xff; 4]].concat();
        let mut bits = BitReader::new(&longest);
        assert_eq!(bits.ue(), Ok(u32::MAX - 1));
        let mut bits = BitReader::new(&longest);
        assert_eq!(bits.se(), Ok(-i32::MAX));
        assert_eq!(BitReader::new(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff]).ue(), Err(OutOfBits));
    }
}
