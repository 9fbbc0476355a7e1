//! The ring on which all sessions of a room stand.

use std::collections::BTreeSet;

use wire::id::PeerId;

/// The next session in either direction; fewer if there are fewer.
pub(super) fn neighbours(session: &PeerId, room: &BTreeSet<PeerId>) -> Vec<PeerId> {
    let here = place(session);
    let others = room.iter().filter(|peer| *peer != session);
    // How far it is from here, round the ring in one direction.
    let distance = |peer: &&PeerId| (place(peer).wrapping_sub(here), (*peer).clone());
    let mut neighbours: Vec<PeerId> = Vec::new();
    neighbours.extend(others.clone().min_by_key(distance).cloned());
    neighbours.extend(others.max_by_key(distance).cloned());
    neighbours.dedup();
    neighbours
}

/// FNV-1a, stirred: every peer of every version finds the same place.
fn place(session: &PeerId) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = session.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::vectors;

    fn names(list: &serde_json::Value) -> Vec<PeerId> {
        list.as_array().unwrap().iter().map(|name| PeerId::from(name.as_str().unwrap())).collect()
    }

    #[test]
    fn every_implementation_puts_everybody_at_the_same_place() {
        let all = vectors::read("ring");
        for case in all["places"].as_array().unwrap() {
            let name = case["name"].as_str().unwrap();
            assert_eq!(
                format!("{:x}", place(&PeerId::from(name))),
                case["place"].as_str().unwrap(),
                "{name}"
            );
        }
        let room: BTreeSet<_> = names(&all["room"]).into_iter().collect();
        for peer in &room {
            assert_eq!(neighbours(peer, &room), names(&all["neighbours"][&*peer.to_string_lossy()]));
        }
    }

    #[test]
    fn the_neighbours_of_all_make_one_ring() {
        for size in [0, 1, 2, 3, 10, 200] {
            let room: BTreeSet<_> = (0..size).map(|n| PeerId::from(format!("peer {n}").as_str())).collect();
            let Some(first) = room.first().cloned() else { continue };
            let mut reached = BTreeSet::from([first.clone()]);
            let mut edge = vec![first];
            while let Some(peer) = edge.pop() {
                let next = neighbours(&peer, &room);
                assert_eq!(next.len(), (size - 1).min(2), "{size}");
                edge.extend(next.into_iter().filter(|peer| reached.insert(peer.clone())));
            }
            assert_eq!(reached.len(), size);
        }
    }

    #[test]
    fn neighbours_are_neighbours_of_each_other() {
        let room: BTreeSet<_> = (0..50).map(|n| PeerId::from(format!("{n}").as_str())).collect();
        for peer in &room {
            for next in neighbours(peer, &room) {
                assert!(neighbours(&next, &room).contains(peer));
            }
        }
    }
}
