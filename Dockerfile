# The image holds one static binary: no shell, no nft, no libraries.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build

# A test builds this stage alone, with a directory in place of the first one, and runs
# it as the DaemonSet does: tests/image.
FROM scratch
COPY --from=build /src/bin/kube-nft /kube-nft
ENTRYPOINT ["/kube-nft"]
CMD ["run"]
