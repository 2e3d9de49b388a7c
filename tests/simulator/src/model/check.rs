//! The model's own consistency: whatever happens, these things stay true.

use std::collections::BTreeSet;

use super::{State, storage, volume};

/// All that is wrong, in words; empty when all is well.
pub(crate) fn problems(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    let mut referred = BTreeSet::new();
    for (vmid, container) in &state.containers {
        for (id, name) in volume::all_volumes(&container.file) {
            let leaf = storage::leaf(&name).to_owned();
            match state.storages.get(&id) {
                None => found.push(format!("container {vmid} names the unknown storage {id}")),
                Some(storage) if !storage.volumes.contains_key(&leaf) => found.push(format!(
                    "container {vmid} names {id}:{name}, which isn't there"
                )),
                Some(storage) if storage.written(&leaf) != name => {
                    found.push(format!(
                        "container {vmid} names {id}:{name}, its real name is {}",
                        storage.written(&leaf)
                    ));
                }
                Some(_) => {}
            }
            referred.insert((id, leaf));
        }
        let owned_lock = container.file.lock().filter(|lock| {
            matches!(
                *lock,
                "create" | "disk" | "rollback" | "snapshot" | "destroyed"
            )
        });
        if let Some(lock) = owned_lock
            && !worked_on(state, *vmid)
        {
            found.push(format!(
                "container {vmid} has lock {lock}, and no task works on it"
            ));
        }
        if container.is_running() && container.file.is_template() {
            found.push(format!("container {vmid} is a template and runs"));
        }
    }
    for (id, storage) in &state.storages {
        for (leaf, volume) in &storage.volumes {
            if let Some(origin) = volume
                .origin
                .as_deref()
                .filter(|origin| !storage.volumes.contains_key(*origin))
            {
                found.push(format!("{id}:{leaf} hangs on {origin}, which isn't there"));
            }
            if !referred.contains(&(id.clone(), leaf.clone())) && !worked_on(state, volume.vmid) {
                found.push(format!("{id}:{leaf} belongs to no container"));
            }
        }
    }
    found
}

/// A clone's task is named after its source, so any running clone may be the one.
fn worked_on(state: &State, vmid: u32) -> bool {
    state.tasks.active(vmid)
        || state
            .tasks
            .newest()
            .any(|task| task.exit.is_none() && task.upid.kind == "vzclone")
}
