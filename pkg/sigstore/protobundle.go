package sigstore

import (
	"encoding/base64"
	"encoding/hex"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/harborseal/harborseal/pkg/artifact"
)

// maxTimestamps is how many timestamps of a bundle are looked at, as in sigstore-go.
const maxTimestamps = 32

// protoBundle is a sigstore bundle as cosign v3 writes it, in its order. The library's own writer puts white space in at
// random. Numbers of 64 bits are strings, and what is zero is left out.
type protoBundle struct {
	MediaType string        `json:"mediaType"`
	Material  protoMaterial `json:"verificationMaterial"`
	Envelope  struct {
		Payload     []byte          `json:"payload"`
		PayloadType string          `json:"payloadType"`
		Signatures  []dsseSignature `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type dsseSignature struct {
	Signature []byte `json:"sig"`
}

// protoMaterial has a public key or a certificate.
type protoMaterial struct {
	PublicKey   *protoHint       `json:"publicKey,omitempty"`
	Certificate *protoRaw        `json:"certificate,omitempty"`
	Entries     []protoEntry     `json:"tlogEntries,omitempty"`
	Timestamps  *protoTimestamps `json:"timestampVerificationData,omitempty"`
}

type protoHint struct {
	Hint string `json:"hint"`
}

type protoRaw struct {
	RawBytes []byte `json:"rawBytes"`
}

type protoTimestamps struct {
	RFC3161 []protoTimestamp `json:"rfc3161Timestamps"`
}

type protoTimestamp struct {
	SignedTimestamp []byte `json:"signedTimestamp"`
}

type protoEntry struct {
	LogIndex int64 `json:"logIndex,omitempty,string"`
	LogID    struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
	KindVersion struct {
		Kind    string `json:"kind"`
		Version string `json:"version"`
	} `json:"kindVersion"`
	IntegratedTime   int64         `json:"integratedTime,omitempty,string"`
	InclusionPromise *protoPromise `json:"inclusionPromise,omitempty"`
	InclusionProof   *protoProof   `json:"inclusionProof,omitempty"`
	Body             []byte        `json:"canonicalizedBody"`
}

type protoPromise struct {
	SET []byte `json:"signedEntryTimestamp"`
}

type protoProof struct {
	LogIndex   int64    `json:"logIndex,omitempty,string"`
	RootHash   []byte   `json:"rootHash"`
	TreeSize   int64    `json:"treeSize,omitempty,string"`
	Hashes     [][]byte `json:"hashes,omitempty"`
	Checkpoint struct {
		Envelope string `json:"envelope"`
	} `json:"checkpoint"`
}

// newMaterial writes what verifies a signature. id is that of the key: cosign's hint is its base64.
//
// SPEC: sigstore bundle format v0.3: a certificate stands alone, its issuers are in the verifier's trusted root.
func newMaterial(s artifact.Signature, id []byte) protoMaterial {
	var m protoMaterial
	if len(s.Certificates) > 0 {
		m.Certificate = &protoRaw{RawBytes: s.Certificates[0]}
	} else {
		m.PublicKey = &protoHint{Hint: base64.StdEncoding.EncodeToString(id)}
	}
	if s.Entry != nil {
		m.Entries = []protoEntry{newProtoEntry(*s.Entry)}
	}
	if len(s.Timestamp) > 0 {
		m.Timestamps = &protoTimestamps{RFC3161: []protoTimestamp{{SignedTimestamp: s.Timestamp}}}
	}
	return m
}

func newProtoEntry(e artifact.LogEntry) protoEntry {
	p := protoEntry{LogIndex: e.Index, IntegratedTime: e.IntegratedAt, Body: e.Body}
	p.LogID.KeyID = e.LogID
	p.KindVersion.Kind, p.KindVersion.Version = e.Kind, e.Version
	if len(e.SET) > 0 {
		p.InclusionPromise = &protoPromise{SET: e.SET}
	}
	if e.Proof != nil {
		p.InclusionProof = &protoProof{LogIndex: e.Proof.Index, RootHash: e.Proof.RootHash, TreeSize: e.Proof.TreeSize, Hashes: e.Proof.Hashes}
		p.InclusionProof.Checkpoint.Envelope = e.Proof.Checkpoint
	}
	return p
}

// readMaterial gives what verifies a signature, none of it verified; false if that is neither a key nor a certificate.
//
// Of several log entries none is taken: verifiers refuse a bundle for one that is wrong, and this program writes one alone.
func readMaterial(m *protobundle.VerificationMaterial) (f found, ok bool) {
	switch content := m.GetContent().(type) {
	case *protobundle.VerificationMaterial_PublicKey:
		// The hint is no more than one: each writer has its own way of making it.
		if id, err := base64.StdEncoding.DecodeString(content.PublicKey.GetHint()); err == nil {
			f.hint = hex.EncodeToString(id)
		}
	case *protobundle.VerificationMaterial_Certificate:
		f.Certificates = [][]byte{content.Certificate.GetRawBytes()}
	default:
		return found{}, false
	}
	if entries := m.GetTlogEntries(); len(entries) == 1 {
		f.Entry = readProtoEntry(entries[0])
	}
	if stamps := m.GetTimestampVerificationData().GetRfc3161Timestamps(); len(stamps) <= maxTimestamps {
		for _, t := range stamps {
			f.timestamps = append(f.timestamps, t.GetSignedTimestamp())
		}
	}
	return f, true
}

func readProtoEntry(p *protorekor.TransparencyLogEntry) *artifact.LogEntry {
	e := &artifact.LogEntry{
		LogID: p.GetLogId().GetKeyId(), Kind: p.GetKindVersion().GetKind(), Version: p.GetKindVersion().GetVersion(),
		Body: p.GetCanonicalizedBody(), Index: p.GetLogIndex(), IntegratedAt: p.GetIntegratedTime(),
		SET: p.GetInclusionPromise().GetSignedEntryTimestamp(),
	}
	if proof := p.GetInclusionProof(); proof != nil {
		e.Proof = &artifact.InclusionProof{
			Index: proof.GetLogIndex(), TreeSize: proof.GetTreeSize(), RootHash: proof.GetRootHash(), Hashes: proof.GetHashes(),
			Checkpoint: proof.GetCheckpoint().GetEnvelope(),
		}
	}
	return e
}
