// The comparison of kube-nft with others of its kind. It is a module of its own so that
// what it needs, to draw say, is nothing that kube-nft needs.
module github.com/kube-nft/kube-nft/tests/compare

go 1.26.0

require github.com/kube-nft/kube-nft v0.0.0

replace github.com/kube-nft/kube-nft => ../..
