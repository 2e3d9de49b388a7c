//! The conditions of all kinds and the reasons that each may have: the table of the API, as data.
//!
//! Decides which reason belongs to which condition, what status it stands for, and whether it means "on its way"
//! (`Reconciling`) or "a person has to do something" (`Stalled`). Leaves out when a reason applies, and the message.
//!
//! `Ready` has no reasons of its own but `Deleting`: it takes reason and message of the first condition that isn't met,
//! and where all are met, the reason of the last that says what was asked for (`Running`, `Serving`, `Sealed`, …).

use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantArray};

/// The types of conditions, in the order in which they stand in status.
#[derive(
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantArray,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
pub enum ConditionType {
    /// The summary: everything is as the spec asks.
    Ready,
    /// kstatus: work is under way. Present only while true.
    Reconciling,
    /// kstatus: nothing goes on until a person acts. Present only while true.
    Stalled,
    /// Hypervisor: the API answers, and is the one it was.
    Connected,
    /// Hypervisor: the credentials are accepted and suffice.
    Authorized,
    /// Hypervisor: the operator has its SSH key pair, where `guest.transport` allows SSH.
    SshKeyReady,
    /// The object's Hypervisor is there and may be used.
    HypervisorReady,
    /// The source can be cloned.
    SourceReady,
    /// The container exists and is ours.
    Created,
    /// The container's configuration is the spec's.
    ConfigInSync,
    /// The GPUs are there and held.
    GpuAllocated,
    /// The container runs or is stopped, as asked.
    PowerInSync,
    /// The setup script has run and was verified.
    SetupComplete,
    /// The template is sealed.
    Sealed,
    /// The named snapshots were taken.
    SnapshotsReady,
    /// vLLM serves the model.
    VllmReady,
    /// The probe is answered.
    ProbeReady,
    /// The Service leads to the container.
    ServiceReady,
    /// What is sealed or runs is older than the spec or its source. Present only while true.
    Outdated,
    /// A person stopped all writes. Present only while true.
    Paused,
}

/// Why a condition is as it is: used for conditions, events and metrics alike.
#[derive(
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantArray,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
#[expect(
    missing_docs,
    reason = "the names are the API's own words; the table below says where each belongs"
)]
pub enum Reason {
    AddressConflict,
    Allocated,
    Annotated,
    Applying,
    Authorized,
    Busy,
    CertificateUntrusted,
    Cloning,
    Conflict,
    Connected,
    ConsoleBusy,
    Created,
    Creating,
    Deleting,
    Drifted,
    DriverMismatch,
    Exited,
    Failed,
    Forbidden,
    HasSnapshots,
    Healthy,
    HostDeviceMissing,
    HypervisorNotFound,
    IdentityChanged,
    InSync,
    Incompatible,
    Installing,
    Invalid,
    Loading,
    Locked,
    ModelNotFound,
    NamespaceNotAllowed,
    NoFreeGpu,
    NoQuorum,
    NodeOffline,
    NotAllowed,
    NotIsolated,
    NotVisible,
    OutOfMemory,
    OwnedByAnother,
    OwnershipLost,
    ParentChanged,
    Pending,
    PrivilegesMissing,
    Queued,
    RebuildBlocked,
    RestartRequired,
    RootRequired,
    Running,
    Sealed,
    SecretNotFound,
    Serving,
    SnapshotMismatch,
    Snapshotting,
    SpecChanged,
    StartFailed,
    Starting,
    Stopped,
    Stopping,
    StorageFull,
    Succeeded,
    Taken,
    TaskFailed,
    TemplateNotFound,
    TimedOut,
    TokenInvalid,
    Unhealthy,
    Unreachable,
    VmidTaken,
    Waiting,
    WaitingForTemplate,
    WrongModel,
}

/// The status of a condition.
#[derive(Display, EnumString, IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It holds.
    True,
    /// It doesn't hold.
    False,
    /// It can't be said.
    Unknown,
}

/// What a reason means for the object as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing is to be done because of it.
    Neutral,
    /// On its way: `Reconciling` while so.
    Reconciling,
    /// A person has to act: `Stalled` while so.
    Stalled,
    /// `Reconciling` until the attempts, or the time, are used up, then `Stalled`.
    ReconcilingThenStalled,
}

/// One line of the table: what a reason of a condition stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition.
    pub condition: ConditionType,
    /// Its reason.
    pub reason: Reason,
    /// Its status.
    pub status: Status,
    /// What it means for the object.
    pub effect: Effect,
    /// Whether `Ready` is lowered by it.
    pub lowers_ready: bool,
}

/// The whole table.
#[rustfmt::skip]
pub const TABLE: &[Verdict] = &[
    row(ConditionType::Ready, Reason::Deleting, Status::False, Effect::Reconciling, true),
    row(ConditionType::Ready, Reason::Invalid, Status::False, Effect::Stalled, true),
    row(ConditionType::HypervisorReady, Reason::Connected, Status::True, Effect::Neutral, false),
    row(ConditionType::HypervisorReady, Reason::HypervisorNotFound, Status::False, Effect::Stalled, true),
    row(ConditionType::HypervisorReady, Reason::NamespaceNotAllowed, Status::False, Effect::Stalled, true),
    row(ConditionType::HypervisorReady, Reason::Unreachable, Status::Unknown, Effect::Reconciling, true),
    row(ConditionType::HypervisorReady, Reason::IdentityChanged, Status::False, Effect::Stalled, true),
    row(ConditionType::SourceReady, Reason::Sealed, Status::True, Effect::Neutral, false),
    row(ConditionType::SourceReady, Reason::WaitingForTemplate, Status::False, Effect::Reconciling, true),
    row(ConditionType::SourceReady, Reason::TemplateNotFound, Status::False, Effect::Reconciling, true),
    row(ConditionType::SourceReady, Reason::SnapshotMismatch, Status::False, Effect::Stalled, true),
    row(ConditionType::SourceReady, Reason::Incompatible, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::Created, Status::True, Effect::Neutral, false),
    row(ConditionType::Created, Reason::Queued, Status::False, Effect::Reconciling, true),
    row(ConditionType::Created, Reason::Cloning, Status::False, Effect::Reconciling, true),
    row(ConditionType::Created, Reason::Creating, Status::False, Effect::Reconciling, true),
    row(ConditionType::Created, Reason::Pending, Status::False, Effect::Reconciling, true),
    row(ConditionType::Created, Reason::Busy, Status::False, Effect::Reconciling, true),
    row(ConditionType::Created, Reason::VmidTaken, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::OwnedByAnother, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::OwnershipLost, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::NotAllowed, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::Forbidden, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::Locked, Status::False, Effect::Stalled, true),
    row(ConditionType::Created, Reason::TaskFailed, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::Created, Reason::StorageFull, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::ConfigInSync, Reason::InSync, Status::True, Effect::Neutral, false),
    row(ConditionType::ConfigInSync, Reason::Applying, Status::False, Effect::Reconciling, true),
    row(ConditionType::ConfigInSync, Reason::Drifted, Status::False, Effect::Reconciling, true),
    row(ConditionType::ConfigInSync, Reason::RestartRequired, Status::False, Effect::Neutral, false),
    row(ConditionType::ConfigInSync, Reason::RootRequired, Status::False, Effect::Stalled, true),
    row(ConditionType::ConfigInSync, Reason::Forbidden, Status::False, Effect::Stalled, true),
    row(ConditionType::ConfigInSync, Reason::Invalid, Status::False, Effect::Stalled, true),
    row(ConditionType::ConfigInSync, Reason::AddressConflict, Status::False, Effect::Stalled, true),
    row(ConditionType::SetupComplete, Reason::Succeeded, Status::True, Effect::Neutral, false),
    row(ConditionType::SetupComplete, Reason::Waiting, Status::False, Effect::Reconciling, true),
    row(ConditionType::SetupComplete, Reason::Running, Status::False, Effect::Reconciling, true),
    row(ConditionType::SetupComplete, Reason::ConsoleBusy, Status::False, Effect::Reconciling, true),
    row(ConditionType::SetupComplete, Reason::Failed, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::SetupComplete, Reason::TimedOut, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::Sealed, Reason::Sealed, Status::True, Effect::Neutral, false),
    row(ConditionType::Sealed, Reason::Stopping, Status::False, Effect::Reconciling, true),
    row(ConditionType::Sealed, Reason::Snapshotting, Status::False, Effect::Reconciling, true),
    row(ConditionType::Sealed, Reason::HasSnapshots, Status::False, Effect::Stalled, true),
    row(ConditionType::Outdated, Reason::SpecChanged, Status::True, Effect::Neutral, false),
    row(ConditionType::Outdated, Reason::ParentChanged, Status::True, Effect::Neutral, false),
    row(ConditionType::Outdated, Reason::RebuildBlocked, Status::True, Effect::Neutral, false),
    row(ConditionType::PowerInSync, Reason::Running, Status::True, Effect::Neutral, false),
    row(ConditionType::PowerInSync, Reason::Stopped, Status::True, Effect::Neutral, false),
    row(ConditionType::PowerInSync, Reason::Starting, Status::False, Effect::Reconciling, true),
    row(ConditionType::PowerInSync, Reason::Stopping, Status::False, Effect::Reconciling, true),
    row(ConditionType::PowerInSync, Reason::StartFailed, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::PowerInSync, Reason::NodeOffline, Status::Unknown, Effect::Reconciling, true),
    row(ConditionType::GpuAllocated, Reason::Allocated, Status::True, Effect::Neutral, false),
    row(ConditionType::GpuAllocated, Reason::Conflict, Status::False, Effect::Reconciling, true),
    row(ConditionType::GpuAllocated, Reason::NoFreeGpu, Status::False, Effect::Reconciling, true),
    row(ConditionType::GpuAllocated, Reason::HostDeviceMissing, Status::False, Effect::Stalled, true),
    row(ConditionType::GpuAllocated, Reason::NotVisible, Status::False, Effect::Stalled, true),
    row(ConditionType::GpuAllocated, Reason::NotIsolated, Status::False, Effect::Stalled, true),
    row(ConditionType::GpuAllocated, Reason::DriverMismatch, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::VllmReady, Reason::Serving, Status::True, Effect::Neutral, false),
    row(ConditionType::VllmReady, Reason::Installing, Status::False, Effect::Reconciling, true),
    row(ConditionType::VllmReady, Reason::Loading, Status::False, Effect::Reconciling, true),
    row(ConditionType::VllmReady, Reason::Unreachable, Status::False, Effect::Reconciling, true),
    row(ConditionType::VllmReady, Reason::WrongModel, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::VllmReady, Reason::Exited, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::VllmReady, Reason::OutOfMemory, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::VllmReady, Reason::ModelNotFound, Status::False, Effect::ReconcilingThenStalled, true),
    row(ConditionType::ProbeReady, Reason::Healthy, Status::True, Effect::Neutral, false),
    row(ConditionType::ProbeReady, Reason::Unhealthy, Status::False, Effect::Reconciling, true),
    row(ConditionType::ProbeReady, Reason::Unreachable, Status::False, Effect::Reconciling, true),
    row(ConditionType::SnapshotsReady, Reason::Taken, Status::True, Effect::Neutral, false),
    row(ConditionType::SnapshotsReady, Reason::Pending, Status::False, Effect::Reconciling, true),
    row(ConditionType::SnapshotsReady, Reason::Failed, Status::False, Effect::Stalled, true),
    row(ConditionType::ServiceReady, Reason::InSync, Status::True, Effect::Neutral, false),
    row(ConditionType::ServiceReady, Reason::Pending, Status::False, Effect::Reconciling, true),
    row(ConditionType::ServiceReady, Reason::OwnedByAnother, Status::False, Effect::Stalled, true),
    row(ConditionType::ServiceReady, Reason::Forbidden, Status::False, Effect::Stalled, true),
    row(ConditionType::ServiceReady, Reason::Invalid, Status::False, Effect::Stalled, true),
    row(ConditionType::Paused, Reason::Annotated, Status::True, Effect::Neutral, false),
    row(ConditionType::Connected, Reason::Connected, Status::True, Effect::Neutral, false),
    row(ConditionType::Connected, Reason::Unreachable, Status::False, Effect::Reconciling, true),
    row(ConditionType::Connected, Reason::CertificateUntrusted, Status::False, Effect::Reconciling, true),
    row(ConditionType::Connected, Reason::NoQuorum, Status::False, Effect::Reconciling, true),
    row(ConditionType::Connected, Reason::IdentityChanged, Status::False, Effect::Stalled, true),
    row(ConditionType::Authorized, Reason::Authorized, Status::True, Effect::Neutral, false),
    row(ConditionType::Authorized, Reason::SecretNotFound, Status::False, Effect::Stalled, true),
    row(ConditionType::Authorized, Reason::TokenInvalid, Status::False, Effect::Stalled, true),
    row(ConditionType::Authorized, Reason::PrivilegesMissing, Status::False, Effect::Stalled, true),
    row(ConditionType::SshKeyReady, Reason::Created, Status::True, Effect::Neutral, false),
    row(ConditionType::SshKeyReady, Reason::Creating, Status::False, Effect::Reconciling, true),
    row(ConditionType::SshKeyReady, Reason::Forbidden, Status::False, Effect::Stalled, true),
    row(ConditionType::SshKeyReady, Reason::Invalid, Status::False, Effect::Stalled, true),
];

const fn row(
    condition: ConditionType,
    reason: Reason,
    status: Status,
    effect: Effect,
    lowers_ready: bool,
) -> Verdict {
    Verdict {
        condition,
        reason,
        status,
        effect,
        lowers_ready,
    }
}

/// The line of the table for a reason of a condition; none where the API doesn't have this pair.
pub fn verdict(condition: ConditionType, reason: Reason) -> Option<&'static Verdict> {
    TABLE
        .iter()
        .find(|row| row.condition == condition && row.reason == reason)
}

impl ConditionType {
    /// The condition's name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Reason {
    /// The reason's name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::VariantArray;

    use super::{ConditionType, Effect, Reason, Status, TABLE, verdict};

    #[test]
    fn every_reason_and_condition_is_in_the_table() {
        let used: BTreeSet<Reason> = TABLE.iter().map(|row| row.reason).collect();
        assert_eq!(used, Reason::VARIANTS.iter().copied().collect());
        let used: BTreeSet<ConditionType> = TABLE.iter().map(|row| row.condition).collect();
        let summaries = BTreeSet::from([ConditionType::Reconciling, ConditionType::Stalled]);
        let own: BTreeSet<ConditionType> = ConditionType::VARIANTS.iter().copied().collect();
        assert_eq!(used, &own - &summaries);
    }

    #[test]
    fn no_pair_stands_twice() {
        let pairs: BTreeSet<_> = TABLE
            .iter()
            .map(|row| (row.condition, row.reason))
            .collect();
        assert_eq!(pairs.len(), TABLE.len());
    }

    #[test]
    fn what_holds_never_lowers_ready_and_what_is_unmet_is_somebodys_move() {
        for row in TABLE {
            if row.status == Status::True {
                assert!(
                    !row.lowers_ready && row.effect == Effect::Neutral,
                    "{row:?}"
                );
            } else if row.lowers_ready {
                assert_ne!(row.effect, Effect::Neutral, "{row:?}");
            }
        }
    }

    #[test]
    fn names_are_the_words_of_the_api() {
        assert_eq!(Reason::VmidTaken.as_str(), "VmidTaken");
        assert_eq!(ConditionType::GpuAllocated.as_str(), "GpuAllocated");
        assert_eq!("RootRequired".parse(), Ok(Reason::RootRequired));
        assert!(verdict(ConditionType::Ready, Reason::Sealed).is_none());
        assert_eq!(
            verdict(ConditionType::ConfigInSync, Reason::RestartRequired)
                .map(|row| row.lowers_ready),
            Some(false)
        );
    }
}
