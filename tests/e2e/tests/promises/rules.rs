//! What the CRDs accept and refuse, asked of the real kube-apiserver: the cases that `crds/tests` judges with an evaluator of its own, and
//! those that only the schema's bounds decide.

use std::path::{Path, PathBuf};

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use phoenix_crds::{Hypervisor, LxcContainer, LxcTemplate, rules::RULES};
use serde_json::{Value, json};

use crate::stage::{Settings, Stage, file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_accepts_and_refuses_as_the_rules_say() {
    // alone, since the cases make Hypervisors that others might take for theirs; and without an operator that would touch them
    let stage = Stage::raise(
        "rules",
        Settings {
            alone: true,
            operator: false,
            ..Settings::without_guests()
        },
    )
    .await;
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases() {
        count += 1;
        if let Err(why) = judge(&stage.client, &stage.name, &case).await {
            wrong.push(format!("{}: {why}", case.display()));
        }
    }
    assert!(count > 150, "only {count} cases were found");
    assert_eq!(wrong, Vec::<String>::new());
}

fn cases() -> Vec<PathBuf> {
    let folders = ["rules", "schema"].map(|f| file("crds/tests").join(f));
    let below = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect()
    };
    let mut cases: Vec<PathBuf> = folders
        .iter()
        .flat_map(|f| below(f))
        .flat_map(|f| below(&f))
        .filter(|f| f.extension().is_some_and(|e| e == "yaml"))
        .collect();
    cases.sort();
    cases
}

/// Creates the first document; where there is a second, changes it into that.
async fn judge(client: &Client, namespace: &str, case: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(case).unwrap();
    let documents: Vec<Value> = text
        .split("\n---")
        .map(|t| serde_saphyr::from_str(t).unwrap())
        .collect();
    let api = api(
        client,
        namespace,
        documents[0]["kind"].as_str().unwrap_or_default(),
    );
    let params = PostParams::default();
    let name = documents[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let created = api.create(&params, &object(&documents[0], namespace)).await;
    let outcome = match (created, documents.get(1)) {
        (created, None) => created.map(drop),
        (Err(e), Some(_)) => return Err(format!("the object to change was refused: {e}")),
        (Ok(old), Some(new)) => change(&api, old, &documents[0], new, namespace, &params).await?,
    };
    if api
        .get_opt(&name)
        .await
        .map_err(|e| e.to_string())?
        .is_some()
    {
        api.delete(&name, &DeleteParams::default())
            .await
            .map_err(|e| e.to_string())?;
    }
    let accepted = case
        .file_name()
        .is_some_and(|f| f.to_string_lossy().starts_with("accepted"));
    match (accepted, outcome) {
        (true, Ok(())) => Ok(()),
        (true, Err(e)) => Err(format!("refused: {e}")),
        (false, Ok(())) => Err("accepted".to_owned()),
        (false, Err(e)) => sentence(case, &e),
    }
}

async fn change(
    api: &Api<DynamicObject>,
    mut old: DynamicObject,
    first: &Value,
    new: &Value,
    namespace: &str,
    params: &PostParams,
) -> Result<Result<(), kube::Error>, String> {
    let name = old.metadata.name.clone().unwrap_or_default();
    if let Some(status) = first.get("status") {
        let patch = Patch::Merge(json!({"status": status}));
        old = api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
            .map_err(|e| format!("its status was refused: {e}"))?;
    }
    let mut new = object(new, namespace);
    new.metadata.resource_version = old.metadata.resource_version;
    Ok(api.replace(&name, params, &new).await.map(drop))
}

/// A rule refuses with its own sentence and nothing else does.
fn sentence(case: &Path, error: &kube::Error) -> Result<(), String> {
    let kube::Error::Api(status) = error else {
        return Err(error.to_string());
    };
    let Some(rule) = case
        .parent()
        .and_then(Path::file_name)
        .and_then(|n| RULES.iter().find(|r| r.name == n.to_string_lossy()))
    else {
        return Ok(());
    };
    let causes = status.details.as_ref().map_or(0, |d| d.causes.len());
    if status.message.contains(rule.message) && causes == 1 {
        Ok(())
    } else {
        Err(format!(
            "refused for another reason ({causes} causes): {}",
            status.message
        ))
    }
}

fn api(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    match kind {
        "LxcTemplate" => Api::namespaced_with(
            client.clone(),
            namespace,
            &ApiResource::erase::<LxcTemplate>(&()),
        ),
        "LxcContainer" => Api::namespaced_with(
            client.clone(),
            namespace,
            &ApiResource::erase::<LxcContainer>(&()),
        ),
        _ => Api::all_with(client.clone(), &ApiResource::erase::<Hypervisor>(&())),
    }
}

fn object(document: &Value, namespace: &str) -> DynamicObject {
    let mut document = document.clone();
    if document["kind"] != "Hypervisor" {
        document["metadata"]["namespace"] = json!(namespace);
    }
    serde_json::from_value(document).expect("an object")
}
