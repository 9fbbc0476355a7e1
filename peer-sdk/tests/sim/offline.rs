//! Apart for long, and together again.

use rand::Rng;

use crate::convergence::{assert_converged, assert_quiet, secs};
use crate::for_seeds;
use crate::network::{Weather, ms};
use crate::peer::Target;
use crate::world::World;

#[test]
fn both_ends_edit_offline_for_long_and_catch_up() {
    for_seeds("both_ends_edit_offline_for_long_and_catch_up", 40, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        let ana = world.peer(&[Target::Server(server)], 8);
        let ben = world.peer(&[Target::Server(server)], 8);
        world.start(ana);
        world.start(ben);
        world.run_for(secs(5));
        world.isolate(ana);
        world.isolate(ben);
        for _ in 0..100 {
            let author = world.network.dice.random_range(0..2);
            world.edit(author);
            world.run_for(ms(500));
        }
        world.heal();
        // Nobody waits longer than the longest delay between two attempts.
        world.run_for(secs(35));
        assert_converged(&mut world);
        assert_quiet(&mut world);
    });
}

#[test]
fn an_edit_made_before_the_first_connection_is_uploaded() {
    for_seeds("an_edit_made_before_the_first_connection", 20, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        world.stop_server(server);
        let ana = world.peer(&[Target::Server(server)], 0);
        let ben = world.peer(&[Target::Server(server)], 0);
        world.start(ana);
        world.annotate(ana, "written on the train");
        world.run_for(secs(20));
        world.start_server(server);
        world.start(ben);
        world.run_for(secs(32));
        assert_eq!(world.notes(ben), ["written on the train"]);
    });
}

#[test]
fn waking_skips_the_wait() {
    for_seeds("waking_skips_the_wait", 20, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        let ana = world.peer(&[Target::Server(server)], 0);
        world.start(ana);
        world.stop_server(server);
        world.run_for(secs(300));
        world.annotate(ana, "written on the train");
        world.start_server(server);
        world.tell(ana, peer_sdk::engine::Input::Wake);
        world.run_for(secs(1));
        assert!(world.engine(ana).status().links[0].holds_all);
    });
}

#[test]
fn while_the_hub_is_away_edits_flow_from_peer_to_peer_and_it_catches_up() {
    for_seeds("while_the_hub_is_away", 40, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        let peers: Vec<_> = (0..3).map(|_| world.peer(&[Target::Server(server)], 8)).collect();
        peers.iter().for_each(|peer| world.start(*peer));
        world.run_for(secs(10));
        world.stop_server(server);
        world.run_for(secs(2));
        for (n, author) in peers.iter().enumerate() {
            let note = format!("without a hub {n}");
            world.annotate(*author, &note);
            world.run_for(secs(1));
            for reader in &peers {
                assert!(world.notes(*reader).contains(&note));
            }
        }
        world.start_server(server);
        world.run_for(secs(40));
        assert_converged(&mut world);
        assert_quiet(&mut world);
    });
}

#[test]
fn who_dies_is_gone_for_the_others_within_seconds_and_who_leaves_at_once() {
    for_seeds("who_dies_is_gone", 40, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        let [ana, ben, eve] = [8, 8, 0].map(|channels| world.peer(&[Target::Server(server)], channels));
        [ana, ben, eve].into_iter().for_each(|peer| world.start(peer));
        world.run_for(secs(15));
        assert_eq!(world.engine(ana).online(world.now).len(), 2);
        world.crash(ben);
        world.run_for(secs(5));
        assert_eq!(world.engine(ana).online(world.now).len(), 1);
        assert_eq!(world.engine(eve).online(world.now).len(), 1);
        world.tell(eve, peer_sdk::engine::Input::Close);
        world.run_for(ms(500));
        assert_eq!(world.engine(ana).online(world.now).len(), 0);
    });
}

#[test]
fn a_wrong_clock_keeps_nobody_from_being_seen_once() {
    for_seeds("a_wrong_clock", 40, |seed| {
        let mut world = World::seeded(seed, Weather::FAIR);
        let server = world.server();
        let [ana, ben] = [0, 1].map(|_| world.peer(&[Target::Server(server)], 8));
        world.peers[ben].skew = if seed.is_multiple_of(2) { 3_600_000 } else { -3_600_000 };
        [ana, ben].into_iter().for_each(|peer| world.start(peer));
        for _ in 0..3 {
            world.run_for(secs(40));
            assert_eq!(world.engine(ana).online(world.now).len(), 1);
            assert_eq!(world.engine(ben).online(world.now).len(), 1);
            world.isolate(ben);
            world.run_for(secs(60));
            assert_eq!(world.engine(ana).online(world.now).len(), 0);
            world.heal();
        }
    });
}
