package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// consumersOf gives the consumers of a stream, of all harbors, by name.
func consumersOf(ctx context.Context, handle jetstream.Stream) (map[string]*jetstream.ConsumerInfo, error) {
	consumers := map[string]*jetstream.ConsumerInfo{}
	lister := handle.ListConsumers(ctx)
	for info := range lister.Info() {
		consumers[info.Name] = info
	}
	if err := lister.Err(); err != nil {
		return nil, askFault(fmt.Errorf("asking for the consumers of stream %s: %w", handle.CachedInfo().Config.Name, err))
	}
	return consumers, nil
}

// stranded counts the messages of a work queue that no consumer covers: a harbor that nobody serves any more, or a subject of
// nobody. Where the consumers have seen as many messages as there are, there is none; else the subjects of all are asked for,
// because the two numbers are not of the same moment.
func stranded(ctx context.Context, handle jetstream.Stream, consumers map[string]*jetstream.ConsumerInfo) (count uint64, err error) {
	var covered uint64
	for _, info := range consumers {
		covered += notDone(info)
	}
	if covered >= handle.CachedInfo().State.Msgs {
		return 0, nil
	}
	info, err := handle.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return 0, askFault(fmt.Errorf("asking for the subjects of stream %s: %w", handle.CachedInfo().Config.Name, err))
	}
	var filters []string
	for _, consumer := range consumers {
		cfg := consumer.Config
		if len(cfg.FilterSubjects) > 0 {
			filters = append(filters, cfg.FilterSubjects...)
			continue
		}
		filters = append(filters, orDefault(cfg.FilterSubject, ">"))
	}
	for subject, messages := range info.State.Subjects {
		if !coveredBy(filters, subject) {
			count += messages
		}
	}
	return count, nil
}

// coveredBy says whether one of the filters matches a subject.
func coveredBy(filters []string, subject string) bool {
	for _, filter := range filters {
		if matches(strings.Split(filter, "."), strings.Split(subject, ".")) {
			return true
		}
	}
	return false
}

// matches compares a filter with a subject, token by token.
func matches(filter, subject []string) bool {
	for i, token := range filter {
		switch {
		case i == len(subject):
			return false
		case token == ">":
			return true
		case token != "*" && token != subject[i]:
			return false
		}
	}
	return len(filter) == len(subject)
}
