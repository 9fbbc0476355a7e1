//! The example `mcp_server`, as an MCP client and reviewers see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/plan/mod.rs"]
mod plan;
mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use loro::LoroDoc;
use peer_sdk::{Peer, WebRtc};
use plan::{Cursor, Reviewer};
use rmcp::model::CallToolRequestParams;
use rmcp::service::RunningService;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// No wait in a test is longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server as a child process, and a client that speaks MCP to it.
struct Agent {
    client: RunningService<RoleClient, ()>,
    child: Child,
}

impl Agent {
    async fn start(dir: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(example())
            .arg("--dir")
            .arg(dir)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let transport = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let client = tokio::time::timeout(PATIENCE, ().serve(transport)).await.unwrap().unwrap();
        Self { client, child }
    }

    /// Calls a tool; what it answers, or why it does not.
    async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, String> {
        let asked = CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone());
        let answer = tokio::time::timeout(PATIENCE, self.client.call_tool(asked)).await.unwrap().unwrap();
        match answer.is_error {
            Some(true) => Err(format!("{:?}", answer.content)),
            _ => Ok(answer.structured_content.unwrap()),
        }
    }

    async fn create(&self) -> Value {
        let steps = json!([{"title": "Copy", "text": "nightly"}, {"title": "Switch"}]);
        self.call("create_plan", json!({"title": "Move the database", "steps": steps})).await.unwrap()
    }

    async fn end(mut self) {
        self.client.cancel().await.unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Where cargo puts examples: it builds them with the tests unless only some are asked for.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/mcp_server");
    assert!(path.exists(), "build it first: cargo build -p peer-sdk --examples");
    path
}

async fn reviewer(created: &Value) -> (LoroDoc, Peer<Reviewer>) {
    let me = Reviewer { name: "Ana".into(), cursor: Some(Cursor { step_id: "s2".into() }), agent: false };
    let (room, hub) = (created["plan_id"].as_str().unwrap(), created["hub"].as_str().unwrap());
    let peer = Peer::builder(room).websocket(hub).user("ana").presence(me).start().await.unwrap();
    let up = peer.wait_until(|status| status.links.iter().any(|link| link.joined) && status.caught_up);
    assert!(tokio::time::timeout(PATIENCE, up).await.unwrap());
    (peer.document().clone(), peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_within_a_second_what_a_reviewer_says() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &["--page", "https://reviews.example/"]).await;
    let created = agent.create().await;
    let id = created["plan_id"].as_str().unwrap();
    let link = created["link"].as_str().unwrap();
    assert!(
        link.starts_with(&format!("https://reviews.example/#room={id}&hub=ws%3A%2F%2F127.0.0.1%3A")),
        "{link}"
    );

    let (doc, ana) = reviewer(&created).await;
    let plan = plan::read(&doc);
    assert_eq!((plan.title.as_str(), plan.steps.len()), ("Move the database", 2));
    assert_eq!(plan.steps[0].text, "nightly");

    let before = agent.call("list_annotations", json!({"plan_id": id})).await.unwrap();
    assert_eq!(before["annotations"], json!([]));
    let waiting = agent.call("wait_for_change", json!({"plan_id": id, "since": before["revision"]}));
    let said = async {
        let said = Instant::now();
        let note = plan::annotate(&doc, "s2", "Ana", "not at noon").unwrap();
        (note, said)
    };
    let (changed, (note, said)) = tokio::join!(waiting, said);
    assert!(said.elapsed() < Duration::from_secs(1), "{:?}", said.elapsed());
    let changed = changed.unwrap();
    assert_eq!(changed["changed"], true);
    assert_eq!(changed["annotations"][0]["text"], "not at noon");

    let seen = agent.call("see_reviewers", json!({"plan_id": id})).await.unwrap();
    assert_eq!(seen["reviewers"][0]["name"], "Ana");
    assert_eq!(seen["reviewers"][0]["at"], json!(["s2"]));

    let reply = json!({"plan_id": id, "annotation_id": note, "text": "at night then", "resolved": true});
    agent.call("reply_to_annotation", reply).await.unwrap();
    let resolved = async {
        while !plan::read(&doc).annotations[0].resolved {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, resolved).await.unwrap();
    assert_eq!(plan::read(&doc).annotations[0].replies[0].text, "at night then");
    let open = agent.call("list_annotations", json!({"plan_id": id, "open_only": true})).await.unwrap();
    assert_eq!(open["annotations"], json!([]));
    ana.close().await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_elsewhere_is_found_over_signaling() {
    let dir = tempfile::tempdir().unwrap();
    let server = support::server::TestServer::start().await;
    let agent = Agent::start(dir.path(), &["--signal", &server.url(), "--password", "among us"]).await;
    let created = agent.create().await;
    let id = created["plan_id"].as_str().unwrap();
    assert!(created["link"].as_str().unwrap().ends_with("&password=among%20us"), "{created}");
    let me = Reviewer { name: "Ben".into(), cursor: None, agent: false };
    let ways = WebRtc::signaling([server.url()]).password("among us");
    let ben = Peer::builder(id).user("ben").presence(me).webrtc(ways).start().await.unwrap();
    let plan = async {
        while plan::read(ben.document()).steps.len() != 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, plan).await.unwrap();
    let waiting = agent.call("wait_for_change", json!({"plan_id": id}));
    let said = async { plan::annotate(ben.document(), "", "Ben", "from afar").unwrap() };
    let (changed, _) = tokio::join!(waiting, said);
    assert_eq!(changed.unwrap()["annotations"][0]["text"], "from afar");
    ben.close().await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &["--token", "secret"]).await;
    let created = agent.create().await;
    let id = created["plan_id"].clone();
    agent.call("add_annotation", json!({"plan_id": id, "step_id": "s1", "text": "first"})).await.unwrap();
    agent.end().await;

    let agent = Agent::start(dir.path(), &["--token", "secret"]).await;
    let plans = agent.call("list_plans", json!({})).await.unwrap();
    assert_eq!(plans["plans"][0]["plan_id"], id);
    assert_eq!(plans["plans"][0]["open_annotations"], 1);
    let plan = agent.call("get_plan", json!({"plan_id": id})).await.unwrap();
    assert_eq!(plan["plan"]["annotations"][0]["text"], "first");
    assert_eq!(plan["plan"]["annotations"][0]["author"], "agent");
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_answered_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]).await;
    let unknown = agent.call("list_annotations", json!({"plan_id": "nothing"})).await.unwrap_err();
    assert!(unknown.contains("there is no plan"), "{unknown}");
    let id = agent.create().await["plan_id"].clone();
    let wrong = json!({"plan_id": id, "step_id": "s9", "text": "?"});
    let wrong = agent.call("add_annotation", wrong).await.unwrap_err();
    assert!(wrong.contains("no step"), "{wrong}");
    let nothing = agent.call("wait_for_change", json!({"plan_id": id, "timeout_seconds": 0})).await.unwrap();
    assert_eq!(nothing["changed"], false);
    agent.end().await;
}
