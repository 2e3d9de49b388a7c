//! Tasks as clients see them: their own, or all where they may.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Call;
use crate::{
    model::task::{Task, Upid},
    reply::{Failure, Outcome, Reply},
};

const PAGE: u64 = 50;
const KILL_AFTER: Duration = Duration::from_secs(5);

/// Whether a task is the caller's own: a user has those of his tokens too, a token only its own.
fn own(call: &Call, upid: &Upid) -> bool {
    match call.who.token {
        Some(_) => upid.user == call.who.id(),
        None => upid.owner().0 == call.who.user,
    }
}

fn find(call: &Call, privilege: &str) -> Result<Upid, Failure> {
    let text = call.text("upid");
    let upid: Upid = text
        .parse()
        .map_err(|()| Failure::parameter("upid", "unable to parse worker upid"))?;
    if !own(call, &upid) {
        call.demand(&format!("/nodes/{}", call.node), privilege)?;
    }
    Ok(upid)
}

fn facts(task: &Task) -> Value {
    let upid = &task.upid;
    let (user, token) = upid.owner();
    let mut facts = json!({
        "upid": upid.to_string(), "node": upid.node, "pid": upid.pid, "pstart": upid.pstart, "starttime": upid.starttime,
        "type": upid.kind, "id": upid.id, "user": user,
    });
    if let Some(token) = token {
        facts["tokenid"] = json!(token);
    }
    facts
}

pub(super) fn status(call: &Call) -> Outcome {
    let upid = find(call, "Sys.Audit")?;
    let state = call.core.state();
    let task = state
        .tasks
        .get(&upid)
        .filter(|task| task.upid.node == call.node)
        .ok_or_else(|| Failure::parameter("upid", "no such task"))?;
    let mut facts = facts(task);
    match &task.exit {
        None => facts["status"] = json!("running"),
        Some(exit) => {
            facts["status"] = json!("stopped");
            facts["exitstatus"] = json!(exit);
        }
    }
    Ok(Reply::data(facts))
}

pub(super) fn log(call: &Call) -> Outcome {
    let upid = find(call, "Sys.Audit")?;
    let state = call.core.state();
    let lines = match state
        .tasks
        .get(&upid)
        .filter(|task| task.upid.node == call.node)
    {
        None => vec!["unable to open file - No such file or directory".to_owned()],
        Some(task) if task.log.is_empty() => vec!["no content".to_owned()],
        Some(task) => task.log.clone(),
    };
    let start = usize::try_from(call.number("start").unwrap_or(0)).unwrap_or(usize::MAX);
    let limit = match call.number("limit").unwrap_or(PAGE) {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let page = lines
        .iter()
        .enumerate()
        .skip(start)
        .take(limit)
        .map(|(number, text)| json!({"n": number + 1, "t": text}));
    Ok(Reply::page(page.collect(), lines.len()))
}

/// TERM, and after some seconds KILL; answered when it is over.
pub(super) async fn stop(call: Call) -> Outcome {
    let upid = find(&call, "Sys.Modify")?;
    let core = &call.core;
    match core
        .state()
        .tasks
        .get(&upid)
        .filter(|task| task.upid.node == call.node)
    {
        None => return Err(Failure::parameter("upid", "no such task")),
        Some(task) => task.cancel.cancel(),
    }
    let deadline = Instant::now()
        + core
            .config
            .timing
            .wait(KILL_AFTER)
            .max(Duration::from_millis(500));
    while Instant::now() < deadline {
        if core
            .state()
            .tasks
            .get(&upid)
            .is_none_or(|task| task.exit.is_some())
        {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    if let Some(task) = core.state().tasks.get(&upid) {
        task.killed.cancel();
    }
    Ok(Reply::null())
}

/// The archive of a node, its running tasks, or both.
pub(super) fn list(call: &Call) -> Outcome {
    let state = call.core.state();
    let all = state
        .access
        .may(&call.who, &format!("/nodes/{}", call.node), "Sys.Audit");
    let source = call.get("source").unwrap_or("archive");
    let fits = |task: &&Task| {
        let upid = &task.upid;
        let listed = match source {
            "active" => task.exit.is_none(),
            "all" => true,
            _ => task.exit.is_some(),
        };
        let classes = call.get("statusfilter");
        listed
            && upid.node == call.node
            && (all || own(call, upid))
            && call.get("vmid").is_none_or(|vmid| upid.id == vmid)
            && call.get("typefilter").is_none_or(|kind| upid.kind == kind)
            && call
                .get("userfilter")
                .is_none_or(|user| upid.user.contains(user))
            && call
                .number("since")
                .is_none_or(|since| upid.starttime >= since)
            && call
                .number("until")
                .is_none_or(|until| upid.starttime <= until)
            && !(call.flag("errors") && matches!(task.class(), "ok" | "warning"))
            && classes.is_none_or(|classes| {
                classes
                    .split([',', ';', ' '])
                    .any(|class| class == task.class())
            })
    };
    let found: Vec<&Task> = state.tasks.newest().filter(fits).collect();
    let start = usize::try_from(call.number("start").unwrap_or(0)).unwrap_or(usize::MAX);
    let limit = usize::try_from(call.number("limit").unwrap_or(PAGE)).unwrap_or(usize::MAX);
    let page = found
        .iter()
        .skip(start)
        .take(limit)
        .map(|task| row(task, true));
    let page: Vec<Value> = page.collect();
    // A list of nothing comes without its length.
    Ok(if found.is_empty() {
        Reply::data(Value::Array(page))
    } else {
        Reply::page(page, found.len())
    })
}

fn row(task: &Task, running_word: bool) -> Value {
    let mut row = facts(task);
    match &task.exit {
        // A task that runs is told as its worker's own list has it: with the token in the user's name.
        None if running_word => {
            row["status"] = json!("RUNNING");
            row["saved"] = json!("0");
            row["user"] = json!(task.upid.user);
            if let Some(row) = row.as_object_mut() {
                row.remove("tokenid");
            }
        }
        None => {}
        Some(exit) => {
            row["status"] = json!(exit);
            row["endtime"] = json!(task.ended);
        }
    }
    row
}

/// Recent tasks of all nodes. A token without audit rights sees none, not even its own: the list goes by bare user names.
pub(super) fn cluster(call: &Call) -> Outcome {
    const RECENT: usize = 25;
    let state = call.core.state();
    let all = state.access.may(&call.who, "/", "Sys.Audit");
    let shown = state
        .tasks
        .newest()
        .filter(|task| all || task.upid.owner().0 == call.who.id())
        .take(RECENT);
    let line = |task| {
        let mut row = row(task, false);
        if let Some(row) = row.as_object_mut() {
            // What the nodes tell each other doesn't hold it.
            row.remove("pstart");
        }
        row
    };
    Ok(Reply::data(shown.map(line).collect()))
}
