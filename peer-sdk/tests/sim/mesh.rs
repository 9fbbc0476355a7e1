//! Rooms of data channels, made over y-webrtc signaling.

use std::collections::BTreeSet;

use peer_sdk::engine::{Input, LinkId};
use rand::Rng;

use crate::convergence::{assert_converged, assert_presence_of, assert_quiet, secs};
use crate::for_seeds;
use crate::network::{Weather, ms};
use crate::world::World;

/// Peers that have nothing but data channels.
fn mesh(seed: u64, weather: Weather, size: usize, most: usize) -> World {
    mesh_in(World::seeded(seed, weather), size, most)
}

fn mesh_in(mut world: World, size: usize, most: usize) -> World {
    world.server();
    for _ in 0..size {
        world.peer(&[], most);
    }
    for peer in 0..size {
        world.start(peer);
        let pause = world.network.between((ms(0), ms(100)));
        world.run_for(pause);
    }
    world
}

fn assert_connected(world: &World, most: usize) {
    let size = world.peers.len();
    let mut reached = BTreeSet::from([0]);
    let mut edge = vec![0];
    while let Some(peer) = edge.pop() {
        edge.extend(world.neighbours(peer).into_iter().filter(|other| reached.insert(*other)));
    }
    assert_eq!(reached.len(), size, "all can be reached from the first");
    for peer in 0..size {
        let channels = world
            .engine(peer)
            .status()
            .links
            .iter()
            .filter(|link| matches!(link.link, LinkId::Channel(_)))
            .count();
        assert!(channels <= most, "peer {peer} has {channels}");
    }
}

#[test]
fn a_small_room_becomes_a_full_mesh_even_when_signals_are_lost() {
    for_seeds("a_small_room_becomes_a_full_mesh", 60, |seed| {
        let weather = if seed.is_multiple_of(2) {
            Weather::FAIR
        } else {
            Weather { signals_lost: 200, ..Weather::FAIR }
        };
        let mut world = mesh(seed, weather, 4, 8);
        world.run_for(secs(120));
        for peer in 0..4 {
            assert_eq!(world.neighbours(peer).len(), 3, "peer {peer}");
        }
        world.edit(0);
        world.run_for(secs(2));
        world.network.weather = Weather::FAIR;
        assert_converged_without_servers(&mut world);
        assert_quiet(&mut world);
    });
}

fn assert_converged_without_servers(world: &mut World) {
    world.stop_server(0);
    world.run_for(secs(5));
    assert_converged(world);
    world.start_server(0);
}

#[test]
fn two_offers_at_once_make_one_channel() {
    for_seeds("two_offers_at_once_make_one_channel", 100, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        world.server();
        let [ana, ben] = [0, 1].map(|_| world.peer(&[], 8));
        world.start(ana);
        world.start(ben);
        world.run_for(secs(10));
        assert_eq!((world.neighbours(ana), world.neighbours(ben)), (vec![ben], vec![ana]));
        world.annotate(ana, "hello");
        world.run_for(ms(500));
        assert_eq!(world.notes(ben), ["hello"]);
    });
}

#[test]
fn what_was_offered_while_signaling_was_away_is_offered_anew() {
    for_seeds("what_was_offered_while_signaling_was_away", 40, |seed| {
        let mut world = mesh(seed, Weather::FAIR, 2, 8);
        let [ana, ben] = [0, 1];
        world.run_for(secs(3));
        assert_eq!(world.neighbours(ana), [ben]);
        world.isolate(ben);
        world.run_for(ms(4000 + seed * 500));
        assert!(world.neighbours(ana).is_empty());
        world.heal();
        // It has dialled anew.
        world.tell(ben, Input::SignalingUp);
        world.run_for(ms(1500));
        assert_eq!(world.neighbours(ana), [ben]);
    });
}

#[test]
fn two_hundred_peers_with_eight_channels_each_stay_one_room() {
    for_seeds("two_hundred_peers_with_eight_channels", 1, |seed| {
        let size = 200;
        let mut world = mesh(seed, Weather::FAIR, size, 8);
        world.run_for(secs(30));
        assert_connected(&world, 8);
        for author in 0..5 {
            world.annotate(author * 37 % size, &format!("note {author}"));
        }
        world.run_for(secs(5));
        for reader in 0..size {
            assert_eq!(world.notes(reader).len(), 5, "peer {reader}");
        }
        // A tenth of them dies at once.
        for peer in (0..size).step_by(10) {
            world.crash(peer);
        }
        world.run_for(secs(30));
        // Its tree has lost some of its branches.
        world.annotate(37, "afterwards");
        world.run_for(secs(5));
        let up: Vec<_> = (0..size).filter(|peer| peer % 10 != 0).collect();
        for reader in &up {
            assert_eq!(world.notes(*reader).len(), 6, "peer {reader}");
        }
        assert_presence_of(&world, &up);
    });
}

/// How long after an edit the last peer has it, in one-way delays, and how many copies of it went to each.
struct Spread {
    delays: u32,
    copies: f64,
}

/// Edits of several authors in turn, each twenty times, over links that all take the same time.
fn spread(world: &mut World) -> Vec<Spread> {
    let delay = ms(40);
    world.network.weather.latency = (delay, delay);
    let size = world.peers.len();
    let mut edits = Vec::new();
    for author in 0..4 {
        let author = author * 71 % size;
        for number in 0..20 {
            let before = world.traffic.updates;
            world.annotate(
                author,
                &format!("note {number}: the third step is not safe when the disk is full"),
            );
            let version = world.engine(author).version().clone();
            let mut delays = 0;
            while !(0..size).all(|peer| world.engine(peer).version().includes_vv(&version)) {
                delays += 1;
                assert!(delays < 100, "it does not arrive");
                world.run_for(delay);
            }
            world.run_for(ms(500));
            let copies = (world.traffic.updates - before) as f64 / (size - 1) as f64;
            edits.push(Spread { delays, copies });
        }
    }
    edits
}

fn assert_an_edit_spreads_soon_and_at_little_cost(seed: u64, size: usize) {
    // Only edits are looked at, and presence of so many takes most of the time.
    let mut world = World::seeded(seed, Weather::FAIR);
    world.present = false;
    let mut world = mesh_in(world, size, 8);
    world.run_for(secs(20));
    assert_connected(&world, 8);
    let edits = spread(&mut world);
    let slowest = edits.iter().map(|edit| edit.delays).max().unwrap();
    let mean = edits.iter().map(|edit| edit.copies).sum::<f64>() / edits.len() as f64;
    let firsts: Vec<_> = edits.iter().step_by(20).map(|edit| edit.copies).collect();
    eprintln!(
        "{size} peers: {slowest} delays at most, {mean:.2} copies; {firsts:.2?} of each author's first"
    );
    assert!(slowest <= 6, "{slowest} delays");
    assert!(mean <= 1.5, "{mean} copies");
}

#[test]
fn an_edit_spreads_among_two_hundred_peers_within_six_delays_and_one_and_a_half_copies_each() {
    for_seeds("an_edit_spreads_among_two_hundred", 1, |seed| {
        assert_an_edit_spreads_soon_and_at_little_cost(seed, 200);
    });
}

#[test]
fn an_edit_spreads_among_three_hundred_peers_within_six_delays_and_one_and_a_half_copies_each() {
    for_seeds("an_edit_spreads_among_three_hundred", 1, |seed| {
        assert_an_edit_spreads_soon_and_at_little_cost(seed, 300);
    });
}

#[test]
fn two_halves_that_grew_apart_find_each_other() {
    for_seeds("two_halves_that_grew_apart", 10, |seed| {
        let mut world = mesh(seed, Weather::FAIR, 12, 4);
        world.run_for(secs(30));
        for a in 0..6 {
            for b in 6..12 {
                let (a, b) = (world.peers[a].node, world.peers[b].node);
                world.cut(a, b);
            }
        }
        for _ in 0..20 {
            let author = world.network.dice.random_range(0..12);
            world.edit(author);
            world.run_for(secs(3));
        }
        world.heal();
        world.run_for(secs(240));
        assert_connected(&world, 4);
        assert_converged_without_servers(&mut world);
    });
}

#[test]
fn who_edits_after_it_announced_what_another_wrote_has_caught_up_within_a_second() {
    for_seeds("who_edits_after_it_announced", 40, |seed| {
        let mut world = mesh(seed, Weather::FAIR, 3, 8);
        let [ana, ben, cem] = [0, 1, 2];
        world.run_for(secs(20));
        // The first goes everywhere, and makes the tree: what follows is announced where it did not come from.
        for note in ["one", "another"] {
            world.annotate(cem, note);
            world.run_for(secs(1));
        }
        world.annotate(ana, "mine");
        world.run_for(secs(1));
        for peer in [ana, ben, cem] {
            assert_eq!(world.neighbours(peer).len(), 2);
            assert!(world.engine(peer).is_caught_up(), "{peer}: {:?}", world.engine(peer).status());
        }
    });
}
