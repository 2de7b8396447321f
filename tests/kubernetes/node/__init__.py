"""A stand-in for a kubelet and a kube-proxy: it runs Pods as processes of this machine. Read `kubelet` first."""
