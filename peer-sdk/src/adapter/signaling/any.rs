//! lib0's encoding of JSON values, which is what y-webrtc encrypts.

use serde_json::{Map, Number, Value};

/// How deep values may lie in each other. Signals lie four deep.
const DEPTH: usize = 32;

const UNDEFINED: u8 = 127;
const NULL: u8 = 126;
const INTEGER: u8 = 125;
const FLOAT32: u8 = 124;
const FLOAT64: u8 = 123;
const BIGINT: u8 = 122;
const FALSE: u8 = 121;
const TRUE: u8 = 120;
const STRING: u8 = 119;
const OBJECT: u8 = 118;
const ARRAY: u8 = 117;
const BYTES: u8 = 116;

/// The largest number that is written as an integer.
const LARGEST_INTEGER: u64 = 0x7fff_ffff;

pub(crate) fn write_varuint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varuint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a value.
pub(crate) fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(is_true) => out.push(if *is_true { TRUE } else { FALSE }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => {
            out.push(STRING);
            write_bytes(out, text.as_bytes());
        }
        Value::Array(values) => {
            out.push(ARRAY);
            write_varuint(out, values.len() as u64);
            values.iter().for_each(|value| write(out, value));
        }
        Value::Object(fields) => {
            out.push(OBJECT);
            write_varuint(out, fields.len() as u64);
            for (name, value) in fields {
                write_bytes(out, name.as_bytes());
                write(out, value);
            }
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: &Number) {
    let float = number.as_f64().unwrap_or_default();
    match number.as_i64() {
        Some(integer) if integer.unsigned_abs() <= LARGEST_INTEGER => {
            out.push(INTEGER);
            write_varint(out, integer);
        }
        // As JavaScript has it: numbers are floats, and written short where nothing is lost.
        _ if f64::from(float as f32) == float => {
            out.push(FLOAT32);
            out.extend_from_slice(&(float as f32).to_be_bytes());
        }
        _ => {
            out.push(FLOAT64);
            out.extend_from_slice(&float.to_be_bytes());
        }
    }
}

/// Six bits and the sign in the first byte, seven in each further one.
fn write_varint(out: &mut Vec<u8>, number: i64) {
    let (sign, size) = (if number < 0 { 0x40 } else { 0 }, number.unsigned_abs());
    let more = if size > 0x3f { 0x80 } else { 0 };
    out.push(more | sign | (size & 0x3f) as u8);
    if more != 0 {
        write_varuint(out, size >> 6);
    }
}

/// Reads from the front of a slice. Everything is `None` when the bytes are not what they should be.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn varuint(&mut self) -> Option<u64> {
        self.continued(0, 0)
    }

    /// The rest of a number whose lowest `shift` bits are known.
    fn continued(&mut self, mut number: u64, mut shift: u32) -> Option<u64> {
        loop {
            let byte = self.byte()?;
            // JavaScript's numbers have 53 bits.
            if shift > 49 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
            shift += 7;
        }
    }

    fn varint(&mut self) -> Option<i64> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3f);
        let size = if first & 0x80 == 0 { low } else { self.continued(low, 6)? };
        let size = i64::try_from(size).ok()?;
        Some(if first & 0x40 == 0 { size } else { -size })
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varuint()?).ok()?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A value. What JSON has no word for is null.
    pub(crate) fn value(&mut self) -> Option<Value> {
        self.value_within(DEPTH)
    }

    fn value_within(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        Some(match self.byte()? {
            UNDEFINED | NULL => Value::Null,
            INTEGER => self.varint()?.into(),
            FLOAT32 => float(f64::from(f32::from_be_bytes(self.array()?))),
            FLOAT64 => float(f64::from_be_bytes(self.array()?)),
            BIGINT => i64::from_be_bytes(self.array()?).into(),
            FALSE => false.into(),
            TRUE => true.into(),
            STRING => self.text()?.into(),
            // Grown as the bytes come, and never by what a length claims.
            OBJECT => {
                let mut fields = Map::new();
                for _ in 0..self.varuint()? {
                    let name = self.text()?.to_owned();
                    fields.insert(name, self.value_within(depth)?);
                }
                fields.into()
            }
            ARRAY => {
                let mut values = Vec::new();
                for _ in 0..self.varuint()? {
                    values.push(self.value_within(depth)?);
                }
                values.into()
            }
            BYTES => {
                self.bytes()?;
                Value::Null
            }
            _ => return None,
        })
    }
}

fn float(float: f64) -> Value {
    // JavaScript makes no difference between 2 and 2.0, and neither does who reads this.
    Number::from_f64(float).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn values_come_back() {
        let value = json!({
            "type": "signal", "from": "a", "token": 1_700_000_000_123.456_7, "n": [0, -1, 63, 64, -64, 2_147_483_647],
            "deep": {"x": [true, false, null, "ä", 0.5]},
        });
        let bytes = written(&value);
        assert_eq!(Reader(&bytes).value(), Some(value));
    }

    #[test]
    fn bytes_are_those_of_lib0() {
        assert_eq!(written(&json!(0)), [125, 0]);
        assert_eq!(written(&json!(-64)), [125, 0xc0, 1]);
        assert_eq!(written(&json!(300)), [125, 0xac, 4]);
        assert_eq!(written(&json!(0.5)), [124, 0x3f, 0, 0, 0]);
        assert_eq!(written(&json!(0.1)), [123, 0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]);
        assert_eq!(written(&json!({"a": [null]})), [118, 1, 1, b'a', 117, 1, 126]);
        assert_eq!(written(&json!("ä")), [119, 2, 0xc3, 0xa4]);
    }

    #[test]
    fn damaged_bytes_are_none_and_cost_nothing() {
        let bytes = written(&json!({"a": [1, 2, {"b": "text"}], "c": 1.25}));
        for len in 0..bytes.len() {
            assert_eq!(Reader(&bytes[..len]).value(), None, "cut at {len}");
        }
        // Lengths that claim the world.
        for kind in [OBJECT, ARRAY, STRING, BYTES] {
            assert_eq!(Reader(&[kind, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).value(), None);
        }
        assert_eq!(Reader(&[ARRAY, 1].repeat(10_000)).value(), None);
        assert_eq!(
            Reader(&[INTEGER, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).value(),
            None
        );
        for kind in 0..116 {
            assert_eq!(Reader(&[kind, 0, 0]).value(), None);
        }
    }
}
