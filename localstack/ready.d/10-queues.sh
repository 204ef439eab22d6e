#!/usr/bin/env bash
# Makes the queue `order-events` and, behind it, the dead-letter queue `order-events-dlq`. LocalStack's container runs
# this once it is ready; running it again changes nothing that is right already.
#
# The worker sets events aside itself (EVENT_MAX_ATTEMPTS, 5) in the table `dead_letters`. The queue behind is the net for
# what it cannot count: a message on which workers die. So it must not take a message before the worker would.
set -euo pipefail

queue='order-events'
dead_letter_queue="$queue-dlq"
max_receives=20
visibility_seconds=30
# The longest that SQS keeps a message, so that a long weekend without workers costs nothing.
retention_seconds=1209600
# Long polling, for a consumer that does not ask for it itself.
wait_seconds=20

sqs() { awslocal --region "${AWS_REGION:-us-east-1}" sqs "$@"; }

# Creating with attributes fails if the queue exists with others; setting them always works.
ensure_queue() {
    local url
    url="$(sqs create-queue --queue-name "$1" --query QueueUrl --output text)"
    sqs set-queue-attributes --queue-url "$url" --attributes "$2"
    printf '%s\n' "$url"
}

dead_letter_url="$(ensure_queue "$dead_letter_queue" "{\"MessageRetentionPeriod\": \"$retention_seconds\"}")"
dead_letter_arn="$(sqs get-queue-attributes --queue-url "$dead_letter_url" \
    --attribute-names QueueArn --query Attributes.QueueArn --output text)"

redrive="{\\\"deadLetterTargetArn\\\": \\\"$dead_letter_arn\\\", \\\"maxReceiveCount\\\": \\\"$max_receives\\\"}"
ensure_queue "$queue" "{
    \"MessageRetentionPeriod\": \"$retention_seconds\",
    \"ReceiveMessageWaitTimeSeconds\": \"$wait_seconds\",
    \"VisibilityTimeout\": \"$visibility_seconds\",
    \"RedrivePolicy\": \"$redrive\"
}"
