//! The certificates of a cluster: an authority of its own, and a node's certificate signed by it, as Proxmox VE makes them at installation.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::config::NodeShape;

/// What a cluster presents; it can be replaced while it runs.
pub(crate) struct Certificate {
    node: NodeShape,
    current: RwLock<Issued>,
}

/// One issue of authority and node certificate.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) ca_pem: String,
    pub(crate) leaf_pem: String,
    /// SHA-256 of the node's certificate, `AB:CD:…`.
    pub(crate) fingerprint: String,
    pub(crate) server: Arc<ServerConfig>,
}

impl Certificate {
    pub(crate) fn new(node: NodeShape) -> Result<Self> {
        let current = RwLock::new(issue(&node)?);
        Ok(Self { node, current })
    }

    pub(crate) fn current(&self) -> Issued {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A new authority and a new certificate; new connections meet them.
    pub(crate) fn replace(&self) -> Result<()> {
        let fresh = issue(&self.node)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

fn issue(node: &NodeShape) -> Result<Issued> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name
        .push(DnType::CommonName, "Proxmox Virtual Environment");
    ca.distinguished_name.push(
        DnType::OrganizationalUnitName,
        format!("{:032x}", rand::random::<u128>()),
    );
    ca.distinguished_name
        .push(DnType::OrganizationName, "PVE Cluster Manager CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let leaf_key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![
        "localhost".to_owned(),
        node.name.clone(),
        format!("{}.local", node.name),
    ])?;
    leaf.subject_alt_names
        .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    leaf.subject_alt_names
        .push(SanType::IpAddress(IpAddr::V4(node.address)));
    leaf.distinguished_name
        .push(DnType::OrganizationalUnitName, "PVE Cluster Node");
    leaf.distinguished_name
        .push(DnType::OrganizationName, "Proxmox Virtual Environment");
    leaf.distinguished_name
        .push(DnType::CommonName, format!("{}.local", node.name));
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let signed = leaf.signed_by(&leaf_key, &Issuer::from_params(&ca, &ca_key))?;

    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Issued {
        ca_pem,
        leaf_pem: signed.pem(),
        fingerprint: fingerprint(signed.der()),
        server: Arc::new(server),
    })
}

fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}
