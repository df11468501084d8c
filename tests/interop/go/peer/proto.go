package peer

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"shoal.test/peer/greeterpb"
)

// protoRequest reads proto JSON into the message that the endpoint takes.
func protoRequest(endpoint, text string) (proto.Message, error) {
	var message proto.Message = &greeterpb.HelloRequest{}
	if strings.HasSuffix(endpoint, ".Count") {
		message = &greeterpb.CountRequest{}
	}
	if err := protojson.Unmarshal([]byte(text), message); err != nil {
		return nil, fmt.Errorf("%q is no %T: %w", text, message, err)
	}
	return message, nil
}

func protoReply(endpoint string) proto.Message {
	if strings.HasSuffix(endpoint, ".Count") {
		return &greeterpb.CountReply{}
	}
	return &greeterpb.HelloReply{}
}

func protoJSON(message any) json.RawMessage {
	text, err := protojson.Marshal(message.(proto.Message))
	if err != nil {
		text, _ = json.Marshal(err.Error())
	}
	return text
}
