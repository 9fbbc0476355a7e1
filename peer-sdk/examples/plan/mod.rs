//! A plan under review: the layout of PLAN.md, written and read.
#![allow(dead_code, unreachable_pub, reason = "each example uses its own part")]

pub mod ways;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use loro::{Container, LoroDoc, LoroList, LoroMap, LoroMovableList, LoroText, ValueOrContainer};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a session shows of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reviewer {
    /// A name to show.
    pub name: String,
    /// What is being looked at.
    pub cursor: Option<Cursor>,
    /// A program that answers reviewers: it is shown, and not counted as one of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cursor {
    pub step_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Plan {
    pub title: String,
    pub steps: Vec<Step>,
    pub annotations: Vec<Annotation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    pub id: String,
    pub title: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Annotation {
    pub id: String,
    /// The step that it is about; empty for the plan as a whole.
    pub step_id: String,
    pub author: String,
    pub text: String,
    /// Milliseconds since 1970 by the author's clock.
    pub at: f64,
    pub resolved: bool,
    #[serde(default)]
    pub replies: Vec<Reply>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    pub author: String,
    pub text: String,
    pub at: f64,
}

/// Writes a new plan. Only who creates the plan does so.
pub fn create<'a>(
    doc: &LoroDoc,
    title: &str,
    steps: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    let plan = doc.get_map("plan");
    plan.insert("title", title)?;
    let list = plan.insert_container("steps", LoroMovableList::new())?;
    for (number, (title, text)) in (1..).zip(steps) {
        let step = list.push_container(LoroMap::new())?;
        step.insert("id", format!("s{number}"))?;
        step.insert("title", title)?;
        step.insert_container("text", LoroText::new())?.insert(0, text)?;
    }
    doc.commit();
    Ok(())
}

/// Adds an annotation, and says what it is called.
pub fn annotate(doc: &LoroDoc, step_id: &str, author: &str, text: &str) -> Result<String> {
    let id = format!("{:016x}", rand::random::<u64>());
    let note = doc.get_list("annotations").push_container(LoroMap::new())?;
    note.insert("id", id.as_str())?;
    note.insert("step_id", step_id)?;
    note.insert("author", author)?;
    note.insert("text", text)?;
    note.insert("at", now())?;
    note.insert("resolved", false)?;
    note.insert_container("replies", LoroList::new())?;
    doc.commit();
    Ok(id)
}

/// Replies to an annotation.
pub fn reply(doc: &LoroDoc, annotation: &str, author: &str, text: &str) -> Result<()> {
    let note = find(doc, annotation)?;
    let Some(ValueOrContainer::Container(Container::List(replies))) = note.get("replies") else {
        anyhow::bail!("annotation {annotation} takes no replies");
    };
    let reply = serde_json::json!({"author": author, "text": text, "at": now()});
    replies.push(loro::LoroValue::from(reply))?;
    doc.commit();
    Ok(())
}

/// Marks an annotation as resolved, or as open again.
pub fn resolve(doc: &LoroDoc, annotation: &str, resolved: bool) -> Result<()> {
    find(doc, annotation)?.insert("resolved", resolved)?;
    doc.commit();
    Ok(())
}

fn find(doc: &LoroDoc, id: &str) -> Result<LoroMap> {
    let list = doc.get_list("annotations");
    let maps = (0..list.len()).filter_map(|at| match list.get(at) {
        Some(ValueOrContainer::Container(Container::Map(map))) => Some(map),
        _ => None,
    });
    let has_id = |map: &LoroMap| {
        map.get("id").and_then(|value| value.into_value().ok()).is_some_and(|value| value == id.into())
    };
    maps.into_iter().find(has_id).with_context(|| format!("there is no annotation {id}"))
}

/// Reads the plan. What others wrote otherwise than PLAN.md has it is passed over.
pub fn read(doc: &LoroDoc) -> Plan {
    let all = serde_json::to_value(doc.get_deep_value()).unwrap_or_default();
    Plan {
        title: all["plan"]["title"].as_str().unwrap_or_default().to_owned(),
        steps: each(&all["plan"]["steps"]),
        annotations: each(&all["annotations"]),
    }
}

fn each<T: DeserializeOwned>(list: &Value) -> Vec<T> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| T::deserialize(item).ok()).collect()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_millis() as f64)
}
