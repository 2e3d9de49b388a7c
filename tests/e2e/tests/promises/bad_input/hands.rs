//! What other hands did on the host: a VMID that is taken, a description that was tidied up, a lock.

use phoenix_crds::{
    LxcContainer, LxcTemplate,
    conditions::{ConditionType as C, Reason},
};
use serde_json::json;

use super::{changes, told};
use crate::{
    documented::says,
    stage::{OS_TEMPLATE, Settings, Stage},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vmid_taken_by_a_foreign_container_is_left_alone() {
    let stage = Stage::raise("vmid-taken", Settings::without_guests()).await;
    let simulator = &stage.simulator;
    simulator.create_foreign(905, "payroll").await.unwrap();
    simulator.create_foreign(906, "archive").await.unwrap();
    let before = (simulator.config_text(905), simulator.config_text(906));
    stage.template("wanted", json!({"vmid": 905})).await;
    stage.template("withdrawn", json!({"vmid": 906})).await;
    for (object, vmid, name) in [
        ("wanted", "905", "payroll"),
        ("withdrawn", "906", "archive"),
    ] {
        let sentence = told::<LxcTemplate>(&stage, object, C::Created, Reason::VmidTaken).await;
        says(
            &sentence,
            &[
                &format!("VMID {vmid} is taken by container {name:?}"),
                "left alone",
                "another spec.vmid",
                "remove that guest",
            ],
        );
    }

    // whoever withdraws the object takes nothing with it that isn't its own
    stage.delete::<LxcTemplate>("withdrawn").await;
    assert_eq!(
        (simulator.config_text(905), simulator.config_text(906)),
        before
    );
    assert_eq!(changes(simulator), Vec::<String>::new());

    simulator.delete_container(905).await.unwrap();
    let wanted: LxcTemplate = stage.ready("wanted").await;
    assert_eq!(wanted.status.unwrap().vmid, Some(905));
    assert_eq!(stage.simulator.config_text(906), before.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_was_edited_away_is_told_and_put_back() {
    let settings = Settings {
        polling: ("1s", "1s"),
        ..Settings::without_guests()
    };
    let stage = Stage::raise("lost-mark", settings).await;
    let from_scratch = json!({"source": {"osTemplate": OS_TEMPLATE}, "rootfs": {"size": "4Gi"}, "description": "Ask Ada."});
    stage.container("tidied", "", from_scratch).await;
    let before: LxcContainer = stage.ready("tidied").await;
    let vmid = u32::try_from(before.status.unwrap().vmid.unwrap()).unwrap();
    let description = stage.simulator.containers()[&vmid]
        .description
        .clone()
        .unwrap();

    stage
        .simulator
        .edit_config(vmid, "description", Some("Ask Ada."))
        .unwrap();
    stage.simulator.clear_calls();
    let sentence = told::<LxcContainer>(&stage, "tidied", C::Created, Reason::OwnershipLost).await;
    let mark = description.lines().last().unwrap();
    says(
        &sentence,
        &[
            "left alone",
            &format!("put `{mark}` back"),
            "delete this object to let go of it",
        ],
    );
    // looked at more than once, it is still this container and no other
    let looks = || {
        stage
            .simulator
            .calls()
            .iter()
            .filter(|c| c.endpoint.ends_with("/lxc/{vmid}/config"))
            .count()
    };
    stage.eventually("further looks", || looks() > 4).await;
    assert_eq!(
        told::<LxcContainer>(&stage, "tidied", C::Created, Reason::OwnershipLost).await,
        sentence
    );
    assert_eq!(
        (
            changes(&stage.simulator),
            stage.simulator.containers().len()
        ),
        (vec![], 1)
    );

    stage
        .simulator
        .edit_config(vmid, "description", Some(&format!("Ask Ada.\n{mark}")))
        .unwrap();
    stage.ready::<LxcContainer>("tidied").await;
    assert_eq!(
        changes(&stage.simulator),
        Vec::<String>::new(),
        "nothing had to be done"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_waited_for_or_told_with_its_remedy() {
    let settings = Settings {
        polling: ("1s", "1s"),
        ..Settings::without_guests()
    };
    let stage = Stage::raise("locked", settings).await;
    let from_scratch = json!({"source": {"osTemplate": OS_TEMPLATE}, "rootfs": {"size": "4Gi"}, "resources": {"cores": 1}});
    stage.container("held", "", from_scratch.clone()).await;
    let held: LxcContainer = stage.ready("held").await;
    let vmid = u32::try_from(held.status.unwrap().vmid.unwrap()).unwrap();
    stage.simulator.clear_calls();
    for (lock, reason, says_so) in [
        ("backup", Reason::Busy, "is busy".to_owned()),
        (
            "snapshot-delete",
            Reason::Locked,
            format!("`pct unlock {vmid}`"),
        ),
    ] {
        stage.simulator.set_lock(vmid, lock).unwrap();
        let sentence = told::<LxcContainer>(&stage, "held", C::Created, reason).await;
        says(&sentence, &[&says_so, lock]);
    }
    // what is wanted meanwhile waits
    let mut wanted = from_scratch;
    wanted["resources"]["cores"] = json!(2);
    stage.container("held", "", wanted).await;
    let seen = |c: &LxcContainer| {
        c.status.as_ref().and_then(|s| s.observed_generation) == c.metadata.generation
    };
    let held: LxcContainer = stage.until(stage.api(), "held", "seen", seen).await;
    let running = held
        .status
        .unwrap()
        .conditions
        .into_iter()
        .find(|c| c.type_ == "PowerInSync")
        .unwrap();
    assert_eq!(
        (running.status.as_str(), changes(&stage.simulator)),
        ("True", vec![])
    );

    stage.simulator.unlock(vmid).unwrap();
    stage.ready::<LxcContainer>("held").await;
    assert_eq!(stage.simulator.containers()[&vmid].config["cores"], "2");
}
