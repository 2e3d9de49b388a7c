//! Whose setup could bring the NVIDIA libraries in a container to the version of the node's driver: its own, or that of a template
//! that it was cloned from.

use crate::{
    context::Context,
    engine::key_of,
    guest::{SetupRun, SetupVariable},
    hash,
    lxc::{
        LxcKind,
        desired::{Setup, resolve_setup},
    },
};

/// The line of a setup script that offers it.
const OFFER: &str = "# phoenix: driver-step";
/// What tells the script to do that alone.
const STEP: &str = "PHOENIX_STEP";
/// What must end well after it.
const VERIFY: &str = "nvidia-smi -L";
/// No hierarchy is deeper; a circle of sources, which nothing refuses, ends here.
const DEEPEST: usize = 16;

/// A setup that offers a driver step.
#[derive(Debug, Clone)]
pub struct DriverStep {
    /// Whose setup it is.
    pub of: String,
    /// The run, with a hash of its own for each version of the node's driver.
    pub run: Setup,
}

impl DriverStep {
    /// As it is run in the guest.
    pub(in crate::lxc) fn started(&self, attempt: u32) -> SetupRun {
        let mut run = self.run.run(attempt);
        // the last one counts
        run.env.push(SetupVariable {
            name: STEP.to_owned(),
            value: "driver".into(),
            masked: false,
        });
        run
    }

    /// The driver step of a setup, where its script offers one.
    fn of(setup: Setup, whose: String, host: &str) -> Option<Self> {
        let offered = setup.script.lines().any(|line| line.trim() == OFFER);
        offered.then(|| Self {
            of: whose,
            run: Setup {
                hash: hash::short(&["driver", &setup.hash, host]),
                verify: Some(VERIFY.to_owned()),
                ..setup
            },
        })
    }
}

/// The nearest setup that offers one, from the object's own up to the first template's.
pub(super) async fn driver_step<K: LxcKind>(
    object: &K,
    host: &str,
    cx: &Context,
) -> Option<DriverStep> {
    let namespace = object.namespace().unwrap_or_default();
    let mut whose = key_of(object).to_string();
    let mut spec = object.spec_shared().clone();
    for _ in 0..DEEPEST {
        if let Some(setup) = &spec.setup
            // a ConfigMap that is gone offers nothing
            && let Ok(setup) = resolve_setup(setup, &namespace, cx).await
            && let Some(step) = DriverStep::of(setup, whose, host)
        {
            return Some(step);
        }
        let source = spec.source.template_ref?;
        let template = cx.stores.template(&namespace, &source.name)?;
        whose = key_of(&template).to_string();
        spec = template.spec.shared;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_script_offers_its_driver_step_by_a_line_of_its_own() {
        let setup = |script: &str| Setup {
            script: script.to_owned(),
            verify: Some("true".to_owned()),
            env: Vec::new(),
            timeout: Duration::from_secs(1),
            retries: 2,
            hash: "5e70000001".to_owned(),
        };
        let step = |script: &str, host: &str| DriverStep::of(setup(script), "x".to_owned(), host);
        let offered = "#!/bin/sh\n  # phoenix: driver-step\ntrue\n";
        let first = step(offered, "580.76.05").unwrap();
        assert_eq!(first.run.verify.as_deref(), Some("nvidia-smi -L"));
        assert_ne!(first.run.hash, step(offered, "580.95.05").unwrap().run.hash);
        assert_ne!(first.run.hash, "5e70000001");
        assert!(step("echo '# phoenix: driver-step'\n", "580.76.05").is_none());
    }
}
