//! From commit on one peer to event on the other, over WebRTC.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use loro::LoroMap;
use serde_json::{Value, json};

use crate::server::TestServer;
use crate::{millis, pair, percentiles};

const PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn measure(seconds: u64) -> Value {
    let server = TestServer::start().await;
    let (ana, ben) = pair(&server).await;
    let arrived: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (list, stamps) = (ben.document().get_list("annotations"), Arc::clone(&arrived));
    let _subscription = ben.document().subscribe_root(Arc::new(move |_| {
        let (now, there) = (Instant::now(), list.len());
        stamps.lock().unwrap().resize(there, now);
    }));
    let count = seconds * 1000 / PAUSE.as_millis() as u64;
    let mut tick = tokio::time::interval(PAUSE);
    let mut committed = Vec::new();
    for number in 0..count {
        tick.tick().await;
        let note = ana.document().get_list("annotations").push_container(LoroMap::new()).unwrap();
        note.insert("step_id", "s1").unwrap();
        note.insert("author", "Ana").unwrap();
        note.insert("text", format!("remark {number}: this is not what was agreed on")).unwrap();
        committed.push(Instant::now());
        ana.document().commit();
    }
    let all = async {
        while arrived.lock().unwrap().len() < committed.len() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let lost = tokio::time::timeout(Duration::from_secs(20), all).await.is_err();
    let arrived = arrived.lock().unwrap().clone();
    let times = committed.iter().zip(&arrived).map(|(from, to)| millis(to.saturating_duration_since(*from)));
    json!({"annotation": percentiles(times.collect()), "lost": lost})
}
