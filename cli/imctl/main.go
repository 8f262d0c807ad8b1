// Command imctl is an imroute node and the tool to operate a cluster of them. Start with "imctl dev".
package main

import (
	"os"

	"imroute/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.System()))
}
