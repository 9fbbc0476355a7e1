//! A run that is written down: a TOML file whose keys are the flags of its scenario.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, bail, ensure};
use toml::{Table, Value};

/// Reads a plan and says it as a command line, with `more` behind it, so that what is given there wins.
///
/// `scenario` and `url` become what stands first; `thresholds` and `stages` are lists of `--threshold` and
/// `--stage`; every other key is the flag of that name. `true` is a flag without a value, `false` leaves it out.
pub(super) fn command_line(file: &Path, more: &[OsString]) -> anyhow::Result<Vec<OsString>> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let plan: Table = text.parse().with_context(|| format!("{shown} is no plan"))?;
    spell(plan, more).with_context(|| format!("{shown} is no plan"))
}

fn spell(mut plan: Table, more: &[OsString]) -> anyhow::Result<Vec<OsString>> {
    let scenario = plan.remove("scenario").context("it names no scenario")?;
    let scenario = scenario.as_str().context("scenario is no text")?;
    ensure!(!scenario.starts_with('-') && scenario != "run", "there is no scenario {scenario:?}");
    let mut line = vec![OsString::from("loadtest"), scenario.into()];
    // An address on the command line takes the place of the plan's.
    let given = more.first().is_some_and(|first| first.to_string_lossy().contains("://"));
    let url = plan.remove("url").filter(|_| !given);
    if let Some(url) = url {
        line.push(url.as_str().context("url is no text")?.into());
    }
    let mut flags = Vec::new();
    for (key, value) in plan {
        let flag = match key.as_str() {
            "thresholds" => "threshold",
            "stages" => "stage",
            other => other,
        };
        ensure!(!flag.starts_with('-') && !flag.contains('='), "{key:?} is no name of a flag");
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        for value in values {
            flags.extend(spell_flag(flag, &value)?);
        }
    }
    let more = more.iter().cloned();
    line.extend(if given {
        more.clone().take(1).chain(flags).chain(more.skip(1)).collect()
    } else {
        [flags, more.collect()].concat()
    });
    Ok(line)
}

fn spell_flag(flag: &str, value: &Value) -> anyhow::Result<Option<OsString>> {
    let flag = format!("--{}", flag.replace('_', "-"));
    let value = match value {
        Value::Boolean(true) => return Ok(Some(flag.into())),
        Value::Boolean(false) => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => bail!("{flag} cannot have a value of this kind"),
    };
    Ok(Some(format!("{flag}={value}").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(plan: &str, more: &[&str]) -> anyhow::Result<String> {
        let more: Vec<_> = more.iter().map(OsString::from).collect();
        let line = spell(plan.parse().unwrap(), &more)?;
        Ok(line.join(" ".as_ref()).into_string().unwrap())
    }

    const PLAN: &str = r#"
        scenario = "reviewers"
        url = "ws://h:1"
        count = 300
        half_open = 0.25
        json = true
        saturate = false
        thresholds = ["p99<100ms", "lost=0"]
        stages = ["5s:300"]
    "#;

    #[test]
    fn a_plan_is_a_command_line() {
        let spelled = line(PLAN, &["--count", "5"]).unwrap();
        assert!(spelled.starts_with("loadtest reviewers ws://h:1 "), "{spelled}");
        for part in [
            "--count=300",
            "--half-open=0.25",
            "--json",
            "--threshold=p99<100ms",
            "--threshold=lost=0",
            "--stage=5s:300",
        ] {
            assert!(spelled.contains(part), "{part} is not in {spelled}");
        }
        assert!(!spelled.contains("saturate"));
        assert!(spelled.ends_with(" --count 5"));
    }

    #[test]
    fn an_address_on_the_command_line_wins() {
        let spelled = line(PLAN, &["ws://other:2", "--count", "5"]).unwrap();
        assert!(spelled.starts_with("loadtest reviewers ws://other:2 --"), "{spelled}");
        assert!(!spelled.contains("ws://h:1"));
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for plan in [
            "count = 1",
            "scenario = 1",
            "scenario = \"run\"",
            "scenario = \"-x\"",
            "scenario = \"r\"\n[a]\nb = 1",
        ] {
            assert!(line(plan, &[]).is_err(), "{plan}");
        }
    }
}
