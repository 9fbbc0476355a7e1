//! What the agent can do.

use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{Json, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{self, Annotation, Plan};
use crate::shelf::{Open, Shelf};

/// How long to wait for a change if nothing is said, and at most, in seconds. MCP clients give up on a call themselves.
const WAIT: u64 = 30;
const LONGEST_WAIT: u64 = 600;

const INSTRUCTIONS: &str = "\
Plans that people review in their browsers. Write one with create_plan and give its link to whoever is to review it. \
Then call wait_for_change with the revision of your last answer, and see with list_annotations what they have said. \
Answer with reply_to_annotation, and mark what is dealt with as resolved.";

#[derive(Clone)]
pub(crate) struct Tools {
    shelf: Arc<Shelf>,
    #[expect(dead_code, reason = "what tool_handler makes reads it")]
    tool_router: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct CreatePlan {
    /// What the plan is called.
    title: String,
    /// Its steps, in order.
    steps: Vec<NewStep>,
}

#[derive(Deserialize, JsonSchema)]
struct NewStep {
    /// In a few words.
    title: String,
    /// In as many as it takes.
    #[serde(default)]
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct Created {
    plan_id: String,
    /// To be shared with reviewers. Whoever has it can read and annotate the plan.
    link: String,
    /// For programs: where to dial, with the token; the room is the plan's id.
    hub: String,
}

#[derive(Serialize, JsonSchema)]
struct Plans {
    plans: Vec<Listed>,
}

#[derive(Serialize, JsonSchema)]
struct Listed {
    plan_id: String,
    title: String,
    link: String,
    open_annotations: usize,
}

#[derive(Deserialize, JsonSchema)]
struct WhichPlan {
    plan_id: String,
}

#[derive(Serialize, JsonSchema)]
struct PlanNow {
    revision: u64,
    plan: Plan,
}

#[derive(Deserialize, JsonSchema)]
struct WhichAnnotations {
    plan_id: String,
    /// Leave out what is resolved.
    #[serde(default)]
    open_only: bool,
}

#[derive(Serialize, JsonSchema)]
struct Annotations {
    /// For wait_for_change.
    revision: u64,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize, JsonSchema)]
struct NewAnnotation {
    plan_id: String,
    /// The step that it is about; none for the plan as a whole.
    step_id: Option<String>,
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct Added {
    annotation_id: String,
    revision: u64,
}

#[derive(Deserialize, JsonSchema)]
struct NewReply {
    plan_id: String,
    annotation_id: String,
    /// What to say; none to say nothing.
    text: Option<String>,
    /// Mark the annotation as resolved, or as open again.
    resolved: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
struct Reviewers {
    reviewers: Vec<Seen>,
}

#[derive(Serialize, JsonSchema)]
struct Seen {
    name: String,
    /// The step at which each of its sessions is; none where it shows no step.
    at: Vec<Option<String>>,
    /// For how many seconds it has been here.
    for_seconds: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Wait {
    plan_id: String,
    /// The revision of the last answer: a change since then is answered at once. None waits for the next change.
    since: Option<u64>,
    /// How long to wait, 30 if nothing is said, at most 600.
    timeout_seconds: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Changed {
    /// False: nothing has changed in time.
    changed: bool,
    revision: u64,
    annotations: Vec<Annotation>,
}

type Answer<T> = Result<Json<T>, String>;

#[tool_router]
impl Tools {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self { shelf: Arc::new(shelf), tool_router: Self::tool_router() }
    }

    pub(crate) async fn close(&self) {
        self.shelf.close().await;
    }

    async fn plan(&self, id: &str) -> Result<Arc<Open>, String> {
        self.shelf.get(id).await.map_err(told)
    }

    #[tool(description = "Write a plan for people to review. Answers with the link to share.")]
    async fn create_plan(&self, Parameters(asked): Parameters<CreatePlan>) -> Answer<Created> {
        let steps: Vec<_> = asked.steps.into_iter().map(|step| (step.title, step.text)).collect();
        let plan_id = self.shelf.create(&asked.title, &steps).await.map_err(told)?;
        Ok(Json(Created { link: self.shelf.link(&plan_id), hub: self.shelf.hub(), plan_id }))
    }

    #[tool(description = "Name every plan, with the link to share.")]
    async fn list_plans(&self) -> Answer<Plans> {
        let listed = |(plan_id, open): (String, Arc<Open>)| {
            let plan = plan::read(open.peer.document());
            let open_annotations = plan.annotations.iter().filter(|note| !note.resolved).count();
            Listed { link: self.shelf.link(&plan_id), title: plan.title, open_annotations, plan_id }
        };
        Ok(Json(Plans { plans: self.shelf.all().await.into_iter().map(listed).collect() }))
    }

    #[tool(description = "Read a plan as it is now, with its steps and annotations.")]
    async fn get_plan(&self, Parameters(asked): Parameters<WhichPlan>) -> Answer<PlanNow> {
        let open = self.plan(&asked.plan_id).await?;
        let revision = *open.revision.borrow();
        Ok(Json(PlanNow { revision, plan: plan::read(open.peer.document()) }))
    }

    #[tool(description = "Read what reviewers have said about a plan.")]
    async fn list_annotations(&self, Parameters(asked): Parameters<WhichAnnotations>) -> Answer<Annotations> {
        let open = self.plan(&asked.plan_id).await?;
        // Read first: a change meanwhile is one since then.
        let revision = *open.revision.borrow();
        let mut annotations = plan::read(open.peer.document()).annotations;
        annotations.retain(|note| !(asked.open_only && note.resolved));
        Ok(Json(Annotations { revision, annotations }))
    }

    #[tool(description = "Say something about a step of a plan, or about the plan as a whole.")]
    async fn add_annotation(&self, Parameters(asked): Parameters<NewAnnotation>) -> Answer<Added> {
        let open = self.plan(&asked.plan_id).await?;
        let step = asked.step_id.unwrap_or_default();
        let doc = open.peer.document();
        if !step.is_empty() && !plan::read(doc).steps.iter().any(|known| known.id == step) {
            return Err(format!("the plan has no step {step:?}"));
        }
        let annotation_id = plan::annotate(doc, &step, &self.shelf.name, &asked.text).map_err(told)?;
        Ok(Json(Added { annotation_id, revision: *open.revision.borrow() }))
    }

    #[tool(description = "Reply to an annotation, and mark it as resolved or open.")]
    async fn reply_to_annotation(&self, Parameters(asked): Parameters<NewReply>) -> Answer<Annotations> {
        let open = self.plan(&asked.plan_id).await?;
        let doc = open.peer.document();
        if let Some(text) = &asked.text {
            plan::reply(doc, &asked.annotation_id, &self.shelf.name, text).map_err(told)?;
        }
        if let Some(resolved) = asked.resolved {
            plan::resolve(doc, &asked.annotation_id, resolved).map_err(told)?;
        }
        let revision = *open.revision.borrow();
        let mut annotations = plan::read(doc).annotations;
        annotations.retain(|note| note.id == asked.annotation_id);
        Ok(Json(Annotations { revision, annotations }))
    }

    #[tool(description = "See who is reviewing a plan now, and at which step.")]
    async fn see_reviewers(&self, Parameters(asked): Parameters<WhichPlan>) -> Answer<Reviewers> {
        let open = self.plan(&asked.plan_id).await?;
        let seen = |user: peer_sdk::presence::User<plan::Reviewer>| {
            let shown = user.sessions.iter().map(|session| session.shows.as_ref());
            let at = shown.clone().map(|shows| Some(shows?.cursor.as_ref()?.step_id.clone())).collect();
            let name = shown.flatten().next().map_or(user.name.clone(), |shows| shows.name.clone());
            let longest = user.sessions.iter().map(|session| session.since).max().unwrap_or_default();
            Seen { name, at, for_seconds: longest.as_secs() }
        };
        let is_person = |user: &peer_sdk::presence::User<plan::Reviewer>| {
            !user.sessions.iter().any(|session| session.shows.as_ref().is_some_and(|shows| shows.agent))
        };
        let people = open.peer.presence().online().into_iter().filter(is_person);
        Ok(Json(Reviewers { reviewers: people.map(seen).collect() }))
    }

    #[tool(description = "Wait until a plan changes, because somebody has annotated it for example.")]
    async fn wait_for_change(&self, Parameters(asked): Parameters<Wait>) -> Answer<Changed> {
        let open = self.plan(&asked.plan_id).await?;
        let mut revision = open.revision.clone();
        let since = asked.since.unwrap_or_else(|| *revision.borrow());
        let wait = Duration::from_secs(asked.timeout_seconds.unwrap_or(WAIT).min(LONGEST_WAIT));
        // Another number than ours is from before a restart: much may have changed.
        let waited = tokio::time::timeout(wait, revision.wait_for(|now| *now != since)).await;
        let changed = matches!(waited, Ok(Ok(_)));
        let revision = *open.revision.borrow();
        Ok(Json(Changed { changed, revision, annotations: plan::read(open.peer.document()).annotations }))
    }
}

#[tool_handler]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_instructions(INSTRUCTIONS)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn told(error: anyhow::Error) -> String {
    format!("{error:#}")
}
