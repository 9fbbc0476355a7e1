//! The few field types that every frame is made of: bytes, LEB128 integers, and runs of bytes behind their length.

use std::ops::Range;

use bytes::{BufMut, Bytes};
use thiserror::Error;

/// Why a field cannot be read. Offsets count from the start of what is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The bytes end before the field does.
    #[error("bytes end within the field at byte {at}")]
    Truncated {
        /// Where the field starts.
        at: usize,
    },
    /// Not a LEB128 integer, or one longer than it needs to be, or above 64 bits.
    #[error("no number of at most 64 bits, shortly written, at byte {at}")]
    BadNumber {
        /// Where the number starts.
        at: usize,
    },
    /// Text that is not UTF-8.
    #[error("text at byte {at} is not UTF-8")]
    NotText {
        /// Where the text starts, after its length.
        at: usize,
    },
    /// More than the last field.
    #[error("{len} bytes after the last field")]
    Trailing {
        /// How many more.
        len: usize,
    },
}

/// Reads fields one after the other. Runs of bytes are handed out as slices that share the memory of the whole.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    whole: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(whole: &'a Bytes) -> Self {
        Self { whole, at: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.whole.get(self.at..).unwrap_or_default()
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), ReadError> {
        match self.rest().len() {
            0 => Ok(()),
            len => Err(ReadError::Trailing { len }),
        }
    }

    /// A field of a fixed length.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let array = *self.rest().first_chunk().ok_or(ReadError::Truncated { at: self.at })?;
        self.at += N;
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, ReadError> {
        self.array().map(|[byte]| byte)
    }

    /// `varUint`: LEB128, seven bits a byte, the lowest first.
    pub(crate) fn number(&mut self) -> Result<u64, ReadError> {
        let (mut number, bad) = (0_u64, ReadError::BadNumber { at: self.at });
        for (index, &byte) in self.rest().iter().enumerate().take(10) {
            let (bits, shift) = (u64::from(byte & 0x7f), 7 * index as u32);
            if index == 9 && byte > 1 || index > 0 && byte == 0 {
                return Err(bad);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.at += index + 1;
                return Ok(number);
            }
        }
        Err(if self.rest().len() < 10 { ReadError::Truncated { at: self.at } } else { bad })
    }

    /// `varBytes`: a length and so many bytes. Says where they stand.
    pub(crate) fn run(&mut self) -> Result<Range<usize>, ReadError> {
        let truncated = ReadError::Truncated { at: self.at };
        let len = usize::try_from(self.number()?).map_err(|_| truncated)?;
        if len > self.rest().len() {
            return Err(truncated);
        }
        let run = self.at..self.at + len;
        self.at += len;
        Ok(run)
    }

    /// `varBytes`, sharing the memory of the whole.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, ReadError> {
        self.run().map(|run| self.whole.slice(run))
    }

    /// `varString`: `varBytes` that are UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str, ReadError> {
        let run = self.run()?;
        let at = run.start;
        std::str::from_utf8(&self.whole[run]).map_err(|_| ReadError::NotText { at })
    }
}

/// How many bytes [`put_number`] writes.
pub(crate) fn number_len(number: u64) -> usize {
    (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

/// How many bytes [`put_run`] writes.
pub(crate) fn run_len(len: usize) -> usize {
    number_len(len as u64) + len
}

pub(crate) fn put_number(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

pub(crate) fn put_run(out: &mut impl BufMut, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, ReadError> {
        Reader::new(&Bytes::copy_from_slice(bytes)).number()
    }

    fn written(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, number);
        out
    }

    proptest! {
        #[test]
        fn every_number_comes_back_in_as_many_bytes_as_foretold(number: u64, shift in 0..64_u32) {
            let number = number >> shift;
            let bytes = written(number);
            prop_assert_eq!(bytes.len(), number_len(number));
            prop_assert_eq!(read(&bytes), Ok(number));
        }
    }

    #[test]
    fn numbers_at_the_edges_are_written_as_everybody_writes_them() {
        for (number, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            assert_eq!(written(number), bytes);
            assert_eq!(read(bytes), Ok(number));
        }
    }

    #[test]
    fn a_number_that_is_too_long_too_large_or_cut_off_is_refused() {
        let (bad, truncated) = (Err(ReadError::BadNumber { at: 0 }), Err(ReadError::Truncated { at: 0 }));
        assert_eq!(read(&[0x80, 0x00]), bad);
        assert_eq!(read(&[0xff; 20]), bad);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), bad);
        assert_eq!(read(&[]), truncated);
        assert_eq!(read(&[0x80]), truncated);
        assert_eq!(read(&[0xff; 9]), truncated);
    }

    #[test]
    fn a_run_longer_than_what_is_there_is_refused() {
        for bytes in [&[2, 1][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 7]] {
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(Reader::new(&bytes).bytes(), Err(ReadError::Truncated { at: 0 }));
        }
    }
}
