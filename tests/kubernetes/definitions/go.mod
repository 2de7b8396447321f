// Whose definitions of kinds the Kubernetes room applies. `go mod download` gets them; nothing of them is built.
module workqueue.test/definitions

go 1.26.0

require (
	github.com/kedacore/keda/v2 v2.21.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
	knative.dev/serving v0.51.0
)
