//! Whatever happens, in the end everybody has everything, and it is quiet.

use std::collections::BTreeSet;
use std::time::Duration;

use loro::VersionVector;
use rand::Rng;

use crate::for_seeds;
use crate::network::{Weather, ms};
use crate::peer::Target;
use crate::world::World;

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Everybody who is up holds the same; nothing that a disk took is missing; everybody sees exactly who is there.
pub(crate) fn assert_converged(world: &mut World) {
    let up: Vec<usize> = (0..world.peers.len()).filter(|peer| world.peers[*peer].up.is_some()).collect();
    let value = |world: &World, peer: usize| {
        let doc = &world.peers[peer].up.as_ref().unwrap().doc;
        // A container that somebody has asked for shows, even if it is empty.
        (
            doc.get_text("text").to_string(),
            doc.get_map("map").get_deep_value(),
            doc.get_list("notes").get_deep_value(),
        )
    };
    let first = up[0];
    for peer in &up {
        let running = world.peers[*peer].up.as_ref().unwrap();
        assert_eq!(running.doc.oplog_vv(), running.version(), "peer {peer}'s application has all");
        assert_eq!(running.version(), world.engine(first).version().clone(), "peers {first} and {peer}");
        assert_eq!(value(world, *peer), value(world, first), "peers {first} and {peer}");
        let status = running.engine.status();
        assert!(world.peers[*peer].disk.broken || status.stored, "peer {peer} has stored all");
        assert!(running.engine.is_caught_up(), "peer {peer} knows: {status:?}");
    }
    let all = world.engine(first).version().clone();
    let lost: Vec<_> =
        world.durable.iter().filter(|(id, end)| all.get(id).is_none_or(|have| have < end)).collect();
    assert!(lost.is_empty(), "stored and lost: {lost:?}");
    assert_presence_of(world, &up);
    let now = world.now;
    for server in world.servers.iter_mut().filter(|server| server.up) {
        assert_eq!(server.version(now), all, "the server has all");
        assert_eq!(server.stored(now), all, "the server has stored all");
    }
}

pub(crate) fn assert_presence_of(world: &World, up: &[usize]) {
    let session =
        |peer: &usize| world.peers[*peer].up.as_ref().unwrap().session.to_string_lossy().into_owned();
    let there: BTreeSet<_> = up.iter().map(session).collect();
    for peer in up {
        let online = world.engine(*peer).online(world.now);
        let mut seen: BTreeSet<_> = online.into_iter().map(|online| online.session).collect();
        seen.insert(session(peer));
        assert_eq!(seen, there, "whom peer {peer} sees");
    }
}

/// No link keeps talking: no updates, and not more than the exchanges and heartbeats that everybody is due.
pub(crate) fn assert_quiet(world: &mut World) {
    let before = world.traffic;
    let (minutes, links) = (2, world.links() as u64);
    world.run_for(secs(60 * minutes));
    let (updates, frames) = (world.traffic.updates - before.updates, world.traffic.frames - before.frames);
    let all = (0..world.peers.len()).find_map(|peer| Some(world.peers[peer].up.as_ref()?.version())).unwrap();
    let repeats = world.servers.iter().any(|server| server.waits_for_what_is_lost(&all));
    let most = if repeats { links * minutes * 3 } else { 0 };
    assert!(updates <= most, "{updates} updates in {minutes} quiet minutes");
    // Each way over each link: 12 heartbeats of each session, each perhaps in a message of its own and acknowledged;
    // and 5 exchanges of two messages.
    let sessions = world.peers.iter().filter(|peer| peer.up.is_some()).count() as u64;
    let most = links * (minutes * 7 * sessions * 4 + 20 * minutes);
    assert!(frames <= most, "{frames} messages in {minutes} quiet minutes over {links} links");
}

/// One world, with a bit of everything.
fn turmoil(seed: u64) {
    let weather = if seed.is_multiple_of(3) { Weather::FOUL } else { Weather::FAIR };
    let mut world = World::seeded(seed, weather);
    let servers = world.network.dice.random_range(0..=2);
    for _ in 0..servers {
        world.server();
    }
    let count = world.network.dice.random_range(2..=5);
    for n in 0..count {
        let mut targets: Vec<_> = (0..servers).map(Target::Server).collect();
        if n > 0 && world.network.chance(500) {
            targets.push(Target::Peer(0));
        }
        // Without a server there is no signaling, so the first peer's hub joins all.
        if servers == 0 && n > 0 && targets.is_empty() {
            targets.push(Target::Peer(0));
        }
        let channels = if servers > 0 && world.network.chance(700) { 4 } else { 0 };
        let peer = world.peer(&targets, channels);
        if world.network.chance(150) {
            world.peers[peer].skew = world.network.dice.random_range(-3_600_000..3_600_000);
        }
        if world.network.chance(200) {
            world.imports_within = (ms(10), ms(3000));
        }
    }
    (0..count).for_each(|peer| world.start(peer));
    for _ in 0..world.network.dice.random_range(20..60) {
        let peer = world.network.dice.random_range(0..count);
        let server = if servers > 0 { world.network.dice.random_range(0..servers) } else { 0 };
        match world.network.dice.random_range(0..40) {
            0 => world.isolate(peer),
            1 => {
                let (a, b) = (world.peers[peer].node, world.peers[(peer + 1) % count].node);
                world.cut(a, b);
            }
            2 | 3 => world.heal(),
            4 | 5 => world.crash(peer),
            6 => world.peers[peer].disk.slow ^= true,
            7 => world.peers[peer].disk.broken ^= true,
            8 if servers > 0 && world.servers[server].up => world.stop_server(server),
            9 | 10 if servers > 0 && !world.servers[server].up => world.start_server(server),
            11 if servers > 0 => world.servers[server].slow_disk ^= true,
            12 if servers > 0 => world.servers[server].broken_disk ^= true,
            _ => {}
        }
        if world.peers[peer].up.is_none() && world.network.chance(600) {
            world.start(peer);
        }
        for _ in 0..world.network.dice.random_range(0..4) {
            let author = world.network.dice.random_range(0..count);
            world.edit(author);
        }
        let pause = world.network.between((ms(1), ms(4000)));
        world.run_for(pause);
    }
    heal_everything(&mut world);
    world.run_for(secs(240));
    assert_converged(&mut world);
    assert_quiet(&mut world);
}

pub(crate) fn heal_everything(world: &mut World) {
    world.heal();
    world.network.weather = Weather::FAIR;
    world.imports_within = (ms(1), ms(20));
    for server in 0..world.servers.len() {
        (world.servers[server].slow_disk, world.servers[server].broken_disk) = (false, false);
        if !world.servers[server].up {
            world.start_server(server);
        }
    }
    for peer in 0..world.peers.len() {
        (world.peers[peer].disk.slow, world.peers[peer].disk.broken) = (false, false);
        if world.peers[peer].up.is_none() {
            world.start(peer);
        }
    }
}

#[test]
fn whatever_happens_all_end_up_the_same_and_quiet() {
    for_seeds("whatever_happens_all_end_up_the_same_and_quiet", 500, turmoil);
}

#[test]
fn an_edit_reaches_the_others_of_a_room_in_well_under_a_second() {
    for_seeds("an_edit_reaches_the_others_of_a_room", 50, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        // Ana bridges: Ben is behind her hub, Eve is reached over a data channel, Dan is at the relay.
        let ana = world.peer(&[Target::Server(server)], 8);
        let ben = world.peer(&[Target::Peer(ana)], 0);
        let eve = world.peer(&[], 8);
        let dan = world.peer(&[Target::Server(server)], 0);
        [ana, ben, eve, dan].into_iter().for_each(|peer| world.start(peer));
        world.run_for(secs(10));
        for (author, note) in [(ben, "from ben"), (eve, "from eve"), (dan, "from dan"), (ana, "from ana")] {
            world.annotate(author, note);
            world.run_for(ms(900));
            for reader in [ana, ben, eve, dan] {
                let notes = world.notes(reader);
                assert!(notes.contains(&note.to_owned()), "{reader} after {note}: {notes:?}");
            }
        }
    });
}

#[test]
fn a_peer_that_was_killed_while_writing_loses_nothing_that_it_had_stored() {
    for_seeds("a_peer_that_was_killed_while_writing", 50, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let ana = world.peer(&[], 0);
        world.peers[ana].disk.slow = true;
        for _ in 0..5 {
            world.start(ana);
            for _ in 0..10 {
                world.edit(ana);
                let pause = world.network.between((ms(1), ms(800)));
                world.run_for(pause);
            }
            world.crash(ana);
        }
        let durable = world.durable.clone();
        world.start(ana);
        let version = world.engine(ana).version().clone();
        assert!(version.includes_vv(&durable) && version != VersionVector::default());
    });
}
