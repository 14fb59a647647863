//! [`Slots`]: which node of a cluster has which slot.

use std::sync::Arc;

use redis::{Arg, Cmd, Value};

use super::cluster::{Address, Node};

/// Each slot belongs to one node.
pub(super) struct Slots {
    /// The first and the last slot of each range, which are in order.
    ranges: Vec<(u16, u16, Arc<Node>)>,
}

impl Slots {
    /// What `CLUSTER SLOTS` answered, if that makes sense and names a node. Nodes without a name are at the
    /// host that was `asked`.
    pub(super) fn read(
        value: &Value,
        asked: &str,
        node: impl Fn(Address) -> Option<Arc<Node>>,
    ) -> Option<Self> {
        let Value::Array(told) = value else { return None };
        let mut ranges: Vec<_> = told
            .iter()
            .filter_map(|range| {
                let Value::Array(range) = range else { return None };
                let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..]
                else {
                    return None;
                };
                let address = address(master, asked)?;
                Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, node(address)?))
            })
            .collect();
        ranges.sort_by_key(|(first, ..)| *first);
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// Whose a slot is.
    pub(super) fn node(&self, slot: u16) -> Option<&Arc<Node>> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, node) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.ranges.iter().map(|(_, _, node)| node)
    }
}

/// Host and port, as they begin what is told of a node.
fn address(node: &[Value], asked: &str) -> Option<Address> {
    let [host, Value::Int(port), ..] = node else { return None };
    let host = match host {
        Value::Nil => asked,
        Value::BulkString(host) if host.is_empty() => asked,
        Value::BulkString(host) => std::str::from_utf8(host).ok().filter(|host| *host != "?")?,
        Value::SimpleString(host) => host,
        _ => return None,
    };
    Some(Address { host: host.to_owned(), port: u16::try_from(*port).ok()? })
}

/// The slot of a script's first key; the others lie in the same.
pub(super) fn slot_of(script: &Cmd) -> u16 {
    match script.args_iter().nth(3) {
        Some(Arg::Simple(key)) => slot_of_key(key),
        _ => 0,
    }
}

/// A key's slot, by its hash tag if it has one.
fn slot_of_key(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let inside = &key[open + 1..];
        let close = inside.iter().position(|byte| *byte == b'}')?;
        (close > 0).then_some(&inside[..close])
    });
    crc16(tag.unwrap_or(key)) % 16_384
}

/// The CRC-16 of XMODEM, as the cluster's specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    const TABLE: [u16; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = ((byte as u16) << 8, 0);
            while bit < 8 {
                crc = (crc << 1) ^ (if crc & 0x8000 == 0 { 0 } else { 0x1021 });
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_one_that_the_specification_says() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!([slot_of_key(b"foo"), slot_of_key(b"bar")], [12_182, 5_061]);
        for alike in ["{foo}", "{foo}:1", "a{foo}b{bar}"] {
            assert_eq!(slot_of_key(alike.as_bytes()), 12_182, "{alike}");
        }
        assert_eq!(slot_of_key(b"foo{}"), crc16(b"foo{}") % 16_384, "an empty tag is none");
        assert_eq!(slot_of_key(b"foo{"), crc16(b"foo{") % 16_384);
    }

    #[test]
    fn a_script_goes_where_its_first_key_is() {
        let mut script = redis::cmd("EVALSHA");
        script.arg("hash").arg(2).arg("{foo}:1").arg("{foo}:2").arg("argument");
        assert_eq!(slot_of(&script), 12_182);
    }

    #[test]
    fn slots_are_those_that_a_node_tells() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |first, last, host, port| {
            let node = Value::Array(vec![host, Value::Int(port), text("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), node])
        };
        let told = Value::Array(vec![
            range(100, 200, text("10.0.0.2"), 7002),
            range(0, 99, Value::Nil, 7001),
            range(300, 400, text("?"), 7003),
        ]);
        let node = |address: Address| Some(Arc::new(Node::nowhere(address)));
        let slots = Slots::read(&told, "10.0.0.1", node).unwrap();
        let at = |slot| slots.node(slot).map(|node| node.address.to_string());
        assert_eq!(at(0).as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(at(100).as_deref(), Some("10.0.0.2:7002"));
        assert_eq!(at(200).as_deref(), Some("10.0.0.2:7002"));
        assert_eq!((at(201), at(350)), (None, None));
        for nonsense in [Value::Nil, Value::Array(vec![]), Value::Array(vec![Value::Okay])] {
            assert!(Slots::read(&nonsense, "10.0.0.1", node).is_none());
        }
    }
}
