package shell

// TrustTopic is what a receiver asks signers for the trust document under, over the queue. The question is empty.
const TrustTopic = "trust"
