//! One plan in two terminals.
//!
//! ```sh
//! signaling-server serve                                      # in one terminal
//! cargo run --example annotate -- ana plan-42 --signal ws://127.0.0.1:4444      # in another
//! cargo run --example annotate -- ben plan-42 --signal ws://127.0.0.1:4444      # and in a third
//! ```
//!
//! A line is an annotation of the current step. `/help` lists what else there is.

mod plan;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use loro::LoroDoc;
use peer_sdk::{Event, Peer};
use plan::ways::Ways;
use plan::{Annotation, Cursor, Reviewer};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

const HELP: &str = "\
a line                annotate the current step
/new TITLE | A | B    write a new plan with the steps A and B
/list                 the plan and its annotations
/step ID              make this the current step; no ID: the plan as a whole
/reply ID TEXT        reply to an annotation
/resolve ID           mark an annotation as resolved
/who                  who is there, and over which path
/status               how each link is doing
/quit";

/// Reviews a plan with others, a line at a time
#[derive(Parser)]
struct Flags {
    /// Your name
    name: String,
    /// The plan's room
    room: String,
    /// Keep the plan in this file
    #[arg(long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    ways: Ways,
}

#[tokio::main]
async fn main() -> Result<()> {
    let flags = Flags::parse();
    let me = Reviewer { name: flags.name.clone(), cursor: None, agent: false };
    let peer = flags.ways.peer(&flags.room, flags.file)?.user(&flags.name).presence(me).start().await?;
    println!("{} is in {}. /help says what can be done here.", flags.name, flags.room);
    let review = Review { peer, name: flags.name, step: String::new(), shown: BTreeMap::new() };
    review.run().await
}

struct Review {
    peer: Peer<Reviewer>,
    name: String,
    /// The current step.
    step: String,
    /// What has been printed of each annotation.
    shown: BTreeMap<String, Annotation>,
}

impl Review {
    async fn run(mut self) -> Result<()> {
        let (changed, mut changes) = watch::channel(());
        let _subscription = self.doc().subscribe_root(std::sync::Arc::new(move |_| {
            changed.send_replace(());
        }));
        let mut events = self.peer.events();
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut online = String::new();
        self.show_news();
        loop {
            tokio::select! {
                line = lines.next_line() => match line?.as_deref().map(str::trim) {
                    None | Some("/quit") => break,
                    Some(line) => if let Err(error) = self.obey(line) { println!("! {error}") },
                },
                Ok(()) = changes.changed() => self.show_news(),
                event = events.recv() => match event {
                    Ok(Event::Presence) if self.online() != online => {
                        online = self.online();
                        println!("* {online}");
                    }
                    Ok(Event::Presence) | Err(_) => {}
                    Ok(event) => println!("* {event:?}"),
                },
            }
        }
        self.peer.close().await;
        Ok(())
    }

    fn doc(&self) -> &LoroDoc {
        self.peer.document()
    }

    fn obey(&mut self, line: &str) -> Result<()> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "" => {}
            "/help" => println!("{HELP}"),
            "/new" => self.write_plan(rest)?,
            "/list" => self.list(),
            "/step" => self.go_to(rest)?,
            "/who" => println!("{}", self.online()),
            "/status" => println!("{:#?}", self.peer.status()),
            "/reply" => {
                let (id, text) = rest.split_once(' ').context("/reply wants an id and a text")?;
                plan::reply(self.doc(), &self.id(id)?, &self.name, text)?;
            }
            "/resolve" => plan::resolve(self.doc(), &self.id(rest)?, true)?,
            _ if command.starts_with('/') => anyhow::bail!("no such command; /help lists them"),
            _ => {
                plan::annotate(self.doc(), &self.step, &self.name, line)?;
            }
        }
        Ok(())
    }

    fn write_plan(&self, text: &str) -> Result<()> {
        anyhow::ensure!(plan::read(self.doc()).title.is_empty(), "there is a plan already");
        let mut parts = text.split('|').map(str::trim).filter(|part| !part.is_empty());
        let title = parts.next().context("/new wants a title")?;
        plan::create(self.doc(), title, parts.map(|step| (step, "")))?;
        self.list();
        Ok(())
    }

    fn go_to(&mut self, step: &str) -> Result<()> {
        let known = plan::read(self.doc()).steps.iter().any(|known| known.id == step);
        anyhow::ensure!(known || step.is_empty(), "there is no step {step}");
        self.step = step.to_owned();
        let cursor = known.then(|| Cursor { step_id: step.to_owned() });
        self.peer.presence().set(Reviewer { name: self.name.clone(), cursor, agent: false })?;
        Ok(())
    }

    /// The annotation whose id begins like this.
    fn id(&self, start: &str) -> Result<String> {
        let annotations = plan::read(self.doc()).annotations;
        let mut found = annotations.iter().filter(|note| !start.is_empty() && note.id.starts_with(start));
        match (found.next(), found.next()) {
            (Some(note), None) => Ok(note.id.clone()),
            (None, _) => anyhow::bail!("there is no annotation {start}"),
            _ => anyhow::bail!("more than one annotation begins with {start}"),
        }
    }

    fn list(&self) {
        let plan = plan::read(self.doc());
        println!("{}", plan.title);
        for step in &plan.steps {
            println!("  {}  {}  {}", step.id, step.title, step.text);
        }
        plan.annotations.iter().for_each(print);
    }

    /// Prints what is new in the document.
    fn show_news(&mut self) {
        for note in plan::read(self.doc()).annotations {
            if self.shown.get(&note.id) != Some(&note) {
                print(&note);
                self.shown.insert(note.id.clone(), note);
            }
        }
    }

    /// Who is there, in a line.
    fn online(&self) -> String {
        let others = self.peer.presence().online();
        let shown = others.iter().flat_map(|user| {
            user.sessions.iter().map(move |session| {
                let at = session.shows.as_ref().and_then(|shows| shows.cursor.as_ref());
                let at = at.map_or_else(String::new, |cursor| format!(" at {}", cursor.step_id));
                format!("{}{at} ({:?})", user.name, session.path)
            })
        });
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() {
            "nobody else is here".to_owned()
        } else {
            format!("here: {}", shown.join(", "))
        }
    }
}

fn print(note: &Annotation) {
    let done = if note.resolved { " (resolved)" } else { "" };
    let id = note.id.get(..6).unwrap_or(&note.id);
    println!("{id} [{}] {}: {}{done}", note.step_id, note.author, note.text);
    for reply in &note.replies {
        println!("       {}: {}", reply.author, reply.text);
    }
}
