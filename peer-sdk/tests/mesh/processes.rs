//! Peers in processes of their own, which die and fall asleep.

use super::*;

/// A peer in a process of its own, which is told what to do a line at a time and says what happens.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// The signaling server of a [`Process`], and its name.
const CHILD: &str = "PEER_SDK_TEST_MESH";

impl Process {
    fn start(name: &str, server: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::child", "--nocapture"])
            .env(CHILD, format!("{name} {server}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), output, child }
    }

    async fn annotate(&mut self, note: &str) {
        self.input.write_all(format!("{note}\n").as_bytes()).await.unwrap();
    }

    /// Waits until it has this note.
    async fn until_noted(&mut self, note: &str) {
        let said =
            async { while self.output.next_line().await.unwrap().unwrap() != format!("noted {note}") {} };
        within("the other process", said).await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (name, server) = told.split_once(' ').unwrap();
    let (doc, peer) = peer(name, server).await;
    let (noted, mut news) = tokio::sync::watch::channel(());
    let _subscription = doc.subscribe_root(std::sync::Arc::new(move |_| noted.send_replace(())));
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut said = Vec::new();
    loop {
        tokio::select! {
            Ok(Some(line)) = input.next_line() => annotate(&doc, &line),
            Ok(()) = news.changed() => {}
            else => break,
        }
        for note in notes(&doc) {
            if !said.contains(&note) {
                println!("noted {note}");
                said.push(note);
            }
        }
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_have_one_document() {
    let server = Relay::start().await;
    let names = ["ana", "ben", "cem", "dana", "eve"];
    let mut room: Vec<_> = names.iter().map(|name| Process::start(name, &server.url())).collect();
    for (name, process) in names.iter().zip(&mut room) {
        process.annotate(name).await;
    }
    let all = room.iter_mut().map(async |process| {
        let missing = async {
            let mut missing = names.to_vec();
            while !missing.is_empty() {
                let line = process.output.next_line().await.unwrap().unwrap();
                missing.retain(|name| line != format!("noted {name}"));
            }
        };
        within("all notes", missing).await;
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_is_gone_within_five_seconds() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let mut ben = Process::start("ben", &server.url());
    let (_, cem) = peer("cem", &server.url()).await;
    annotate(&ana_doc, "hello");
    ben.until_noted("hello").await;
    until_online(&ana, 2).await;
    until_online(&cem, 2).await;
    let begun = Instant::now();
    ben.signal("-KILL").await;
    until_online(&ana, 1).await;
    until_online(&cem, 1).await;
    assert!(begun.elapsed() < GONE, "{:?}", begun.elapsed());
    ana.close().await;
    cem.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_falls_asleep_is_gone_and_comes_back_once() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let mut ben = Process::start("ben", &server.url());
    annotate(&ana_doc, "hello");
    ben.until_noted("hello").await;
    until_online(&ana, 1).await;
    let begun = Instant::now();
    ben.signal("-STOP").await;
    until_online(&ana, 0).await;
    assert!(begun.elapsed() < GONE, "{:?}", begun.elapsed());
    annotate(&ana_doc, "while you slept");
    ben.signal("-CONT").await;
    ben.until_noted("while you slept").await;
    until_online(&ana, 1).await;
    assert_eq!(ana.presence().online()[0].sessions.len(), 1);
    ana.close().await;
}
